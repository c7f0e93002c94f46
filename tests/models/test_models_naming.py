"""The field's names, our old names and ours are one model; unknown keys are told from the nearest known ones."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.artifacts import read_artifact, write_artifact
from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build, open_model, save_model
from metaprune_cli.models.recognise import recognise, shapes_of
from metaprune_cli.workflows.loading import ModelSource, open_graph
from metaprune_cli.workflows.loading import open_model as open_with_lineage

Value = TypeVar("Value")
PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "checkpoints"
"""Weights that others trained, beside the repository if at all."""
SMALL = {"num_classes": 7, "width": 0.5}
OLD = (
    (r"^conv1\.", "stem.0.0."),
    (r"^bn1\.", "stem.0.1."),
    (r"^layer(\d)\.", lambda found: f"stages.{int(found[1]) - 1}."),
    (r"\.conv1\.", ".first.0."),
    (r"\.bn1\.", ".first.1."),
    (r"\.conv2\.", ".second.0."),
    (r"\.bn2\.", ".second.1."),
    (r"^fc\.", "head.2."),
)


def network(name: str, **args: object) -> nn.Module:
    torch.manual_seed(3)
    return build(Architecture(f"cifar:{name}", {**SMALL, **args})).eval()


def old(name: str) -> str:
    """What an entry of a ResNet was called here at first."""
    for pattern, instead in OLD:
        name = re.sub(pattern, instead, name)
    return name


def of_old(values: Mapping[str, Value]) -> dict[str, Value]:
    return {old(name): value for name, value in values.items()}


def same(model: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_the_entries_of_a_resnet_have_the_fields_names() -> None:
    names = list(network("resnet8").state_dict())
    for name in ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer2.0.shortcut.0.weight", "fc.bias"):
        assert name in names


@pytest.mark.parametrize("shortcut", ["projection", "padded"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("ours", "theirs"), [("fc.", "linear."), (".shortcut.", ".downsample.")])
def test_public_resnets_load_with_nothing_else_given(
    shortcut: str, prefix: str, ours: str, theirs: str, tmp_path: Path
) -> None:
    expected = network("resnet8", shortcut=shortcut)
    state = {
        prefix + name.replace(ours, theirs): tensor
        for name, tensor in expected.state_dict().items()
        if "num_batches" not in name
    }
    torch.save({"state_dict": state}, tmp_path / "m.th")
    for arch in (None, "cifar:resnet8"):
        loaded = open_model(tmp_path / "m.th", arch=arch)
        assert loaded.architecture.name == "cifar:resnet8"
        assert loaded.architecture.args.get("shortcut", "projection") == shortcut
        same(loaded.model, expected)


def test_a_padded_shortcut_is_the_papers_option_a() -> None:
    model = network("resnet8", shortcut="padded")
    x = torch.randn(2, 8, 6, 6)
    out = model.layer2[0].shortcut(x)
    assert out.shape == (2, 16, 3, 3)
    assert torch.equal(out[:, 4:12], x[:, :, ::2, ::2])
    assert not out[:, :4].any()
    assert not out[:, 12:].any()


@pytest.mark.parametrize("bias", [False, True])
def test_a_public_vgg_counts_its_layers_in_one_row(bias: bool, tmp_path: Path) -> None:
    expected = network("vgg11_bn", bias=bias)
    flat: dict[str, Tensor] = {}
    number = -1
    for layer in expected.features:
        for part in layer if isinstance(layer, nn.Sequential) else [layer]:
            number += 1
            flat |= {f"features.{number}.{name}": tensor for name, tensor in part.state_dict().items()}
    flat |= {f"classifier.{name}": tensor for name, tensor in expected.head[2].state_dict().items()}
    torch.save(flat, tmp_path / "m.pt")
    same(open_model(tmp_path / "m.pt").model, expected)


def test_state_dicts_and_artifacts_with_the_old_names_load(tmp_path: Path) -> None:
    expected = network("resnet8")
    torch.save(of_old(expected.state_dict()), tmp_path / "m.pt")
    same(open_model(tmp_path / "m.pt").model, expected)
    save_model(expected, tmp_path / "new", arch="cifar:resnet8")
    artifact = read_artifact(tmp_path / "new")
    zeros = {"kind": "unstructured", "pattern": None, "entries": [old("layer1.0.conv1.weight")]}
    write_artifact(tmp_path / "old", "model", of_old(artifact.tensors), {**artifact.document, "zeros": zeros}, {})
    loaded = open_with_lineage(tmp_path / "old", ModelSource())
    same(loaded.model, expected)
    assert loaded.zeros is not None
    assert loaded.zeros.entries == ("layer1.0.conv1.weight",)


class OldBlock(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(block.conv1, block.bn1), nn.Sequential(block.conv2, block.bn2)
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.second(self.first(x).relu()) + self.shortcut(x)).relu()
        return out


def test_graphs_with_the_old_names_are_read(tmp_path: Path) -> None:
    new = network("resnet8")
    blocks = [OldBlock(block) for layer in (new.layer1, new.layer2, new.layer3) for block in layer]
    was = nn.Sequential()
    was.stem = nn.Sequential(nn.Sequential(new.conv1, new.bn1), nn.ReLU())
    was.stages = nn.Sequential(*(nn.Sequential(block) for block in blocks))
    was.head = nn.Sequential(new.pool, nn.Flatten(1), new.fc)
    graph = encode(was.eval(), torch.zeros(1, 3, 32, 32))
    assert "stages.0.0.first.0.weight" in graph.state_dict()
    tensors, structure = graph.to_parts()
    document = {"structure": structure, "architecture": Architecture("cifar:resnet8", SMALL, (3, 32, 32)).to_document()}
    write_artifact(tmp_path / "old", "graph", tensors, document, {})
    found = open_graph(tmp_path / "old", ModelSource())
    same(found.model, new)
    assert set(found.neuron_graph().state_dict()) == set(new.state_dict())
    assert found.neuron_graph().units.num_units == graph.units.num_units


def test_the_nearest_architectures_of_unknown_keys_are_named_and_what_differs() -> None:
    changed = shapes_of(build(Architecture("torchvision:resnet18"), "meta").state_dict())
    del changed["fc.bias"], changed["fc.weight"]
    changed |= {"classes.weight": (10, 512), "layer1.0.conv1.weight": (64, 64, 5, 5)}
    with pytest.raises(InputError) as caught:
        recognise(changed, Path("my.pt"))
    text = str(caught.value)
    assert re.search(r"nearest: torchvision:resnet18 \(\d+% of the keys\)", text)
    assert "torchvision:resnet18: it has, and the file has not: 2 (fc.weight, fc.bias)" in text
    assert "the file has besides: 1 (classes.weight)" in text
    assert "of other shapes: 1 (layer1.0.conv1.weight [64, 64, 5, 5] for [64, 64, 3, 3])" in text
    assert "metaprune encode my.pt --arch package.module:factory" in text
    start = time.process_time()
    with pytest.raises(InputError):
        recognise(changed)
    assert time.process_time() - start < 1


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public weights are not here")
@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_the_public_weights_load_with_nothing_else_given(depth: int) -> None:
    loaded = open_model(next(PUBLIC.glob(f"cifar10_resnet{depth}-*.th")))
    assert loaded.architecture.name == f"cifar:resnet{depth}"
    assert loaded.architecture.args["shortcut"] == "padded"
    assert loaded.notes[:2] == ("using entry state_dict", "removed the prefix module. from all names")
