"""What a file passes to a known architecture must neither reach out nor make more than the file could need."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metaprune_cli.artifacts import join_aliases, write_artifact
from metaprune_cli.errors import CorruptFileError, InputError, MetapruneError
from metaprune_cli.models import Architecture, open_model, save_model
from metaprune_cli.models.examples import example_inputs
from metaprune_cli.models.on_meta import Limits, TooLargeError, build_limited, build_on_meta
from metaprune_cli.models.registry import build

WEIGHT = {"weight": torch.zeros(1)}


def opened(tmp_path: Path, name: str, args: dict[str, Any]) -> None:
    write_artifact(tmp_path / "m", "model", WEIGHT, {"architecture": {"name": name, "args": args}})
    open_model(tmp_path / "m")


@pytest.mark.parametrize("args", [{"weights": "DEFAULT"}, {"pretrained": True}, {"pretrained_backbone": True}])
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "fcos_resnet50_fpn", "lraspp_mobilenet_v3_large"])
def test_no_argument_of_a_file_downloads_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, args: dict[str, Any]
) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("it reached out")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(InputError, match="does not take these arguments"):
        opened(tmp_path, f"torchvision:{name}", args)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("torchvision:mobilenet_v2", {"inverted_residual_setting": [[1, 16, 10**6, 1]]}),
        ("torchvision:mobilenet_v2", {"inverted_residual_setting": [[1, 16, 10**9, 1]]}),
        ("torchvision:vit_b_16", {"image_size": 10**9}),
        ("torchvision:resnet18", {"num_classes": 2**40}),
        ("torchvision:resnet18", {"block": {"x": 1}}),
        ("torchvision:resnet18", {"norm_layer": "os"}),
        ("cifar:vit", {"depth": 10**9}),
        ("cifar:vit", {"depth": 10**6}),
        ("cifar:resnet8", {"width": 1e300}),
        ("cifar:resnet8", {"width": -1}),
        ("cifar:resnet8", {"in_channels": "three"}),
        ("cifar:resnet8", {"num_classes": [1] * 5000}),
        ("cifar:", {}),
        (":", {}),
        (".x:y", {}),
        ("os:system", {"command": "true"}),
    ],
)
def test_arguments_of_no_model_are_refused_at_once(tmp_path: Path, name: str, args: dict[str, Any]) -> None:
    begun = time.process_time()
    with pytest.raises(MetapruneError):
        opened(tmp_path, name, args)
    assert time.process_time() - begun < 20


def test_a_constructor_is_stopped_where_its_file_could_not_need_more() -> None:
    limits = Limits(tensors=10, values=100)
    with pytest.raises(TooLargeError):
        build_on_meta(lambda: nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), limits)
    build_on_meta(lambda: nn.Linear(1000, 1000), limits)  # nothing is allocated
    with pytest.raises(TooLargeError):
        build_limited(lambda: nn.Linear(1000, 1000), limits)

    def needs_values() -> nn.Module:
        return nn.Linear(int(torch.zeros(1).item()) + 1000, 1000)

    with pytest.raises(TooLargeError):
        build_on_meta(needs_values, limits)
    build(Architecture("cifar:resnet8"), limits=None)


@pytest.mark.parametrize(
    "aliases", [{"a": "b", "b": "a"}, {"x": "x"}, {"x": "nothing"}, {"head.2.weight": "head.2.bias"}]
)
def test_second_names_of_no_tensor_are_refused(aliases: dict[str, str]) -> None:
    tensors = {"head.2.weight": torch.zeros(2), "head.2.bias": torch.zeros(2)}
    with pytest.raises(CorruptFileError, match="names of shared tensors"):
        join_aliases(tensors, aliases)


@pytest.mark.parametrize("shape", [(3, 10**6, 10**6), (0, 8, 8), (-1, 8, 8), ("3",)])
def test_no_input_without_end_is_made(shape: Any) -> None:
    architecture = Architecture("cifar:resnet8")
    object.__setattr__(architecture, "input_shape", shape)
    with pytest.raises(InputError, match="No input can be of this shape"):
        example_inputs(architecture)


def test_an_image_size_among_the_arguments_is_no_way_around(tmp_path: Path) -> None:
    model = build(Architecture("cifar:resnet8", {"width": 0.25}))
    save_model(model, tmp_path / "m", arch=Architecture("cifar:resnet8", {"width": 0.25, "image_size": 32}))
    with pytest.raises(InputError, match="numbers up to"):
        open_model(tmp_path / "m", arch_args={"image_size": 10**6})


def test_an_input_of_a_file_is_not_very_large_unless_somebody_says_so(tmp_path: Path) -> None:
    shape = (3, 2**12, 2**12)
    model = build(Architecture("cifar:resnet8", {"width": 0.25}))
    save_model(model, tmp_path / "m", arch=Architecture("cifar:resnet8", {"width": 0.25}, shape))
    with pytest.raises(InputError, match=r"names a very large input(.|\n)*--input-shape 3,4096,4096"):
        open_model(tmp_path / "m")
    assert open_model(tmp_path / "m", input_shape=shape).architecture.input_shape == shape
