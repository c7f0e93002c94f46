"""Saved models load again, exactly; whatever their shapes, whoever wrote the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from metaprune_cli.artifacts import read_document, write_artifact
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.models import Architecture, build, list_architectures, load_model, open_model, save_model
from metaprune_cli.models.state_files import read_state_file

CIFAR = [name for name in list_architectures() if name.startswith("cifar:")]
SMALL_TORCHVISION = [
    f"torchvision:{name}"
    for name in ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "googlenet")
]
SMALL = {"num_classes": 7, "in_channels": 1, "width": 0.25}


def small_model(name: str = "cifar:resnet8", **args: object) -> nn.Module:
    torch.manual_seed(0)
    model = build(Architecture(name, {**SMALL, **args})).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.01 * torch.randn_like(tensor)
    return model


def assert_same(model: nn.Module, expected: nn.Module, inputs: Tensor) -> None:
    """Equal bit for bit, and of the same behaviour."""
    assert not model.training
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    for (name, one), (_, other) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        assert type(one) is type(other), name
        assert one.requires_grad == other.requires_grad, name
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), expected(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("name", CIFAR)
def test_artifacts_round_trip(name: str, tmp_path: Path) -> None:
    expected = small_model(name)
    save_model(expected, tmp_path / "m", arch=Architecture(name, SMALL), metrics={"top1": 9.5}, extra={"lineage": []})
    loaded = open_model(tmp_path / "m")
    assert loaded.architecture == Architecture(name, SMALL, (1, 32, 32))
    assert loaded.document is not None
    assert loaded.document["metrics"] == {"top1": 9.5}
    assert loaded.document["lineage"] == []
    assert_same(loaded.model, expected, torch.randn(2, 1, 32, 32))


@pytest.mark.parametrize("name", SMALL_TORCHVISION)
def test_torchvision_round_trip(name: str, tmp_path: Path) -> None:
    expected = build(Architecture(name, {"num_classes": 7})).eval()
    save_model(expected, tmp_path / "m", arch=name)
    loaded = open_model(tmp_path / "m")
    assert loaded.architecture.args["num_classes"] == 7
    assert_same(loaded.model, expected, torch.randn(1, 3, 64, 64))


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(small_model(), tmp_path / name, arch="cifar:resnet8")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def narrow_(model: nn.Module) -> nn.Module:
    """Remove the first channel between the two convolutions of the first block, by hand."""
    block = model.layer1[0]
    convolution, norm = block.conv1, block.bn1
    for owner, name, tensor in (
        (convolution, "weight", convolution.weight[1:]),
        (norm, "weight", norm.weight[1:]),
        (norm, "bias", norm.bias[1:]),
        (block.conv2, "weight", block.conv2.weight[:, 1:]),
    ):
        setattr(owner, name, nn.Parameter(tensor.detach().clone()))
    norm.running_mean, norm.running_var = norm.running_mean[1:], norm.running_var[1:]
    convolution.out_channels = norm.num_features = block.conv2.in_channels = norm.weight.numel()
    return model


@pytest.mark.parametrize("arch", ["cifar:resnet8", Architecture("cifar:resnet8", SMALL)], ids=["name", "architecture"])
def test_pruned_models_load_again(tmp_path: Path, arch: str | Architecture) -> None:
    expected = narrow_(small_model())
    save_model(expected, tmp_path / "m", arch=arch)
    loaded = open_model(tmp_path / "m")
    assert_same(loaded.model, expected, torch.randn(2, 1, 32, 32))
    assert str(loaded.model) == str(expected)


def test_tied_weights_stay_tied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from torch import nn\n"
        "def make():\n"
        "    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))\n"
        "    net[1].weight = net[0].weight\n"
        "    return net\n"
    )
    (tmp_path / "tied_factory.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    expected = build(Architecture("tied_factory:make"))
    save_model(expected, tmp_path / "m", arch="tied_factory:make")
    assert read_document(tmp_path / "m")["aliases"] == {"1.weight": "0.weight"}
    loaded = open_model(tmp_path / "m", allow_import=True).model
    assert loaded[1].weight is loaded[0].weight
    with pytest.raises(InputError, match="--allow-import"):
        open_model(tmp_path / "m")
    assert open_model(tmp_path / "m", arch="tied_factory:make").model[1].weight.shape == (4, 4)


class WithConstants(nn.Module):
    """Constants that no state dict holds: a buffer that is not persistent, and a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("table", torch.ones(3).cumsum(0), persistent=False)
        self.scale = torch.ones(3) * 2

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) * self.table * self.scale
        return out


def test_constants_outside_the_state_dict_are_computed(tmp_path: Path) -> None:
    expected = WithConstants().eval()
    save_model(expected, tmp_path / "m", arch=f"{__name__}:WithConstants")
    loaded = open_model(tmp_path / "m", allow_import=True)
    assert_same(loaded.model, expected, torch.randn(2, 3))


@pytest.mark.parametrize("nested", [(), ("state_dict",), ("model",), ("model", "state_dict")], ids=".".join)
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_foreign_state_dicts(nested: tuple[str, ...], prefix: str, tmp_path: Path) -> None:
    expected = small_model()
    content: dict[str, object] = {prefix + name: tensor for name, tensor in expected.state_dict().items()}
    for key in nested:
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "m.pt")
    loaded = open_model(tmp_path / "m.pt", arch="cifar:resnet8", arch_args=SMALL, input_shape=(1, 8, 8))
    assert loaded.architecture == Architecture("cifar:resnet8", SMALL, (1, 8, 8))
    assert loaded.document is None
    assert_same(loaded.model, expected, torch.randn(2, 1, 8, 8))


def test_foreign_safetensors_are_recognised(tmp_path: Path) -> None:
    expected = small_model("cifar:mobilenet_v1")
    safetensors.torch.save_file(expected.state_dict(), tmp_path / "m.safetensors")
    loaded = open_model(tmp_path / "m.safetensors")
    assert loaded.architecture == Architecture("cifar:mobilenet_v1", SMALL, (1, 32, 32))
    assert_same(loaded.model, expected, torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("padding", range(0, 256, 8))
def test_no_length_of_a_header_looks_like_a_pickle(padding: int, tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "m.safetensors", metadata={"a": "b" * padding})
    assert read_state_file(tmp_path / "m.safetensors").content == {"w": torch.ones(1)}


def test_a_wrong_architecture_lists_everything(tmp_path: Path) -> None:
    torch.save(small_model().state_dict(), tmp_path / "m.pt")
    text = r"(?s)not those of cifar:resnet14.*36 missing: layer1\.1\.conv1.*, \.\.\."
    with pytest.raises(InputError, match=text):
        open_model(tmp_path / "m.pt", arch="cifar:resnet14")
    with pytest.raises(InputError, match=r"(?s)\d+ missing: .*\n\d+ unexpected: "):
        save_model(small_model(), tmp_path / "m", arch="cifar:vgg11_bn")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["m.pt", "m"])
def test_arguments_that_contradict_the_tensors_are_refused(name: str, tmp_path: Path) -> None:
    torch.save(small_model().state_dict(), tmp_path / "m.pt")
    save_model(small_model(), tmp_path / "m", arch=Architecture("cifar:resnet8", SMALL))
    with pytest.raises(InputError, match=r"(?s)contradict.*expected: num_classes=7\n  got: num_classes=10"):
        open_model(tmp_path / name, arch="cifar:resnet8", arch_args={"num_classes": 10})


def test_a_named_architecture_gets_the_arguments_that_show_in_the_tensors(tmp_path: Path) -> None:
    torch.save(small_model().state_dict(), tmp_path / "m.pt")
    loaded = open_model(tmp_path / "m.pt", arch="cifar:resnet8")
    assert loaded.architecture == Architecture("cifar:resnet8", SMALL, (1, 32, 32))


def test_shapes_that_do_not_fit_each_other(tmp_path: Path) -> None:
    state = small_model().state_dict()
    state["conv1.weight"] = state["conv1.weight"][1:]
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"(?s)do not fit together.*the last layer that ran is bn1, with a weight"):
        open_model(tmp_path / "m.pt", arch="cifar:resnet8", arch_args=SMALL)


def test_pickled_modules_are_opened_only_if_trusted(tmp_path: Path) -> None:
    torch.save(small_model(), tmp_path / "m.pt")
    with pytest.raises(CorruptFileError, match=r"(?s)an object of metaprune_cli\.models\.\S+.*--trust-pickle"):
        open_model(tmp_path / "m.pt")
    loaded = open_model(tmp_path / "m.pt", trust_pickle=True)
    assert loaded.architecture == Architecture("cifar:resnet8", SMALL, (1, 32, 32))
    assert_same(loaded.model, small_model(), torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("content", [[1], {"epoch": 3}, {}, {"state_dict": {"a": torch.ones(1), "b": 3}}], ids=str)
def test_files_without_a_state_dict(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"The file contains no state dict|state dict cannot be used"):
        open_model(tmp_path / "m.pt")


def test_damaged_files(tmp_path: Path) -> None:
    torch.save(small_model().state_dict(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for content in (b"", b"PK\x03\x04", b"\x80\x02", whole[:2000], whole[:-50], b"no model at all"):
        (tmp_path / "m.pt").write_bytes(content)
        with pytest.raises(CorruptFileError):
            open_model(tmp_path / "m.pt", arch="cifar:resnet8")
    with pytest.raises(InputError, match="cannot be read"):
        open_model(tmp_path / "none.pt")


def test_artifacts_that_are_no_models(tmp_path: Path) -> None:
    write_artifact(tmp_path / "graph", "graph", {}, {})
    write_artifact(tmp_path / "model", "model", {}, {})
    with pytest.raises(InputError, match="kind graph"):
        open_model(tmp_path / "graph")
    with pytest.raises(CorruptFileError, match="does not say what model it holds"):
        open_model(tmp_path / "model")


def test_load_model_is_the_model_alone(tmp_path: Path) -> None:
    expected = small_model()
    save_model(expected, tmp_path / "m", arch=Architecture("cifar:resnet8", SMALL))
    loaded = load_model(tmp_path / "m")
    assert isinstance(loaded, nn.Module)
    assert_same(loaded, expected, torch.randn(2, 1, 32, 32))


def test_an_archive_that_unpacks_to_more_than_itself_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))
    assert (tmp_path / "bomb.pt").stat().st_size < 10_000
    with pytest.raises(CorruptFileError, match="compressed archive"):
        load_model(tmp_path / "bomb.pt", arch="cifar:resnet8")
