"""What a model takes: zeros of a shape, what it says itself, or what its kind takes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.trace.tracer import call
from metaprune_cli.models import Architecture, build, with_input_shape
from metaprune_cli.models.examples import example_inputs, has_example
from metaprune_cli.workflows.coverage import proofs


class Says(nn.Module):
    def __init__(self, stated: Any) -> None:
        super().__init__()
        self.example_inputs = stated


@pytest.mark.parametrize("stated", [(torch.zeros(1, 2), torch.ones(1, 3)), {"x": torch.zeros(1, 2)}, torch.zeros(1, 5)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_says_what_it_takes(stated: Any, wrapped: bool) -> None:
    model = Says((lambda: stated) if wrapped else stated)
    assert example_inputs(Architecture("some.module:factory"), model) is stated


def test_a_stated_shape_comes_first() -> None:
    found = example_inputs(Architecture("some.module:factory", input_shape=(4, 6)), Says(torch.ones(1, 9)))
    torch.testing.assert_close(found, torch.zeros(1, 4, 6))


def test_a_factory_may_say_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> nn.Module:
        return nn.Bilinear(2, 3, 4)

    make.example_inputs = lambda: (torch.zeros(1, 2), torch.zeros(1, 3))  # type: ignore[attr-defined]
    module = ModuleType("a_module_with_a_factory")
    module.make = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    architecture = Architecture(f"{module.__name__}:make")
    model = build(architecture)
    assert call(model, example_inputs(architecture, model)).shape == (1, 4)


@pytest.mark.parametrize(
    ("stated", "text"),
    [(None, "The shape of the model's input is not known"), ([1, 2], "not what a model can be called with")],
)
def test_what_is_not_known_is_an_error(stated: Any, text: str) -> None:
    architecture = Architecture("some.module:factory")
    with pytest.raises(InputError, match=text):
        example_inputs(architecture, Says(stated))
    assert not has_example(architecture, Says(stated))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision:resnet18", (1, 3, 224, 224)),
        ("torchvision:quantized_inception_v3", (1, 3, 299, 299)),
        ("torchvision:r3d_18", (1, 3, 16, 112, 112)),
        ("torchvision:mvit_v2_s", (1, 3, 16, 224, 224)),
        ("torchvision:lraspp_mobilenet_v3_large", (1, 3, 224, 224)),
    ],
)
def test_usual_shapes(name: str, shape: tuple[int, ...]) -> None:
    assert example_inputs(with_input_shape(Architecture(name))).shape == shape


def test_optical_flow_takes_two_images() -> None:
    architecture = with_input_shape(Architecture("torchvision:raft_small"))
    inputs = example_inputs(architecture)
    assert isinstance(inputs, tuple)
    with torch.no_grad():
        flows = build(architecture).eval()(*inputs, num_flow_updates=1)
    assert flows[-1].shape == (1, 2, 128, 128)


@pytest.mark.parametrize(
    "name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "keypointrcnn_resnet50_fpn"]
)
@pytest.mark.filterwarnings("ignore")
def test_detectors_run_on_their_example_in_both_modes(name: str) -> None:
    sizes = {} if name.startswith("ssd") else {"min_size": 128, "max_size": 128}
    architecture = with_input_shape(Architecture(f"torchvision:{name}", sizes))
    torch.manual_seed(0)
    model = build(architecture)
    inputs = example_inputs(architecture, model)
    with torch.no_grad():
        losses = call(model, proofs.two_of(inputs))
        assert losses
        assert all(bool(loss.isfinite()) for loss in leaves(losses, Tensor))
        assert {"boxes", "scores", "labels"} <= call(model.eval(), inputs)[0].keys()
