"""Modules with parameters of other shapes: attributes follow, errors list everything, users can add their own kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph import resize
from metaprune_cli.graph.resize import fill_, register_attributes, resize_

CASES: dict[str, tuple[nn.Module, dict[str, tuple[int, ...]], dict[str, object]]] = {
    "dense": (
        nn.Conv2d(4, 6, 3),
        {"weight": (5, 2, 3, 3), "bias": (5,)},
        {"in_channels": 2, "out_channels": 5, "groups": 1},
    ),
    "grouped": (
        nn.Conv2d(8, 12, 3, groups=4),
        {"weight": (8, 1, 3, 3), "bias": (8,)},
        {"in_channels": 4, "out_channels": 8, "groups": 4},
    ),
    "depthwise": (
        nn.Conv2d(6, 6, 3, groups=6),
        {"weight": (4, 1, 3, 3), "bias": (4,)},
        {"in_channels": 4, "out_channels": 4, "groups": 4},
    ),
    "depthwise with a multiplier": (
        nn.Conv2d(6, 12, 3, groups=6),
        {"weight": (8, 1, 3, 3), "bias": (8,)},
        {"in_channels": 4, "out_channels": 8, "groups": 4},
    ),
    "transposed": (
        nn.ConvTranspose2d(6, 4, 2),
        {"weight": (5, 3, 2, 2), "bias": (3,)},
        {"in_channels": 5, "out_channels": 3, "groups": 1},
    ),
    "transposed and grouped": (
        nn.ConvTranspose2d(8, 12, 2, groups=2),
        {"weight": (6, 4, 2, 2), "bias": (8,)},
        {"in_channels": 6, "out_channels": 8, "groups": 2},
    ),
    "transposed and depthwise": (
        nn.ConvTranspose2d(6, 6, 2, groups=6),
        {"weight": (4, 1, 2, 2), "bias": (4,)},
        {"in_channels": 4, "out_channels": 4, "groups": 4},
    ),
    "linear": (nn.Linear(4, 6), {"weight": (2, 3), "bias": (2,)}, {"in_features": 3, "out_features": 2}),
    "layer norm": (nn.LayerNorm(6), {"weight": (4,), "bias": (4,)}, {"normalized_shape": (4,)}),
    "rms norm": (nn.RMSNorm(6), {"weight": (4,)}, {"normalized_shape": (4,)}),
    "group norm": (nn.GroupNorm(2, 6), {"weight": (4,), "bias": (4,)}, {"num_channels": 4, "num_groups": 2}),
    "embedding": (nn.Embedding(9, 6), {"weight": (9, 4)}, {"num_embeddings": 9, "embedding_dim": 4}),
    "prelu": (nn.PReLU(6), {"weight": (4,)}, {"num_parameters": 4}),
    "batch norm": (
        nn.BatchNorm2d(6),
        {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)},
        {"num_features": 4},
    ),
}
INPUTS = {
    "layer norm": (2, 4),
    "rms norm": (2, 4),
    "linear": (2, 3),
    "dense": (1, 2, 5, 5),
    "transposed": (1, 5, 5, 5),
    "transposed and grouped": (1, 6, 5, 5),
}


@pytest.mark.parametrize("case", CASES)
def test_attributes_follow_the_shapes(case: str) -> None:
    module, shapes, attributes = CASES[case]
    resize_(module, shapes)
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if tensor.dim()} == shapes
    assert {name: getattr(module, name) for name in attributes} == attributes
    if case != "embedding":
        assert module(torch.randn(INPUTS.get(case, (1, 4, 5, 5)))).numel()


def test_what_keeps_its_shape_keeps_its_values() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    bias = model[1].bias
    resize_(model, {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (2, 2), "1.bias": (2,)})
    assert model[1].bias is bias
    assert not model[0].weight.requires_grad
    assert model[1].weight.requires_grad


def test_shared_parameters_stay_shared() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    resize_(model, {"0.weight": (3, 3), "1.weight": (3, 3)})
    assert model[1].weight is model[0].weight


def test_everything_that_does_not_fit_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        resize_(nn.Linear(3, 2), {"weight": (2, 3, 1), "scale": (2,), "bias": (2,)})
    assert "scale: not in the model" in str(caught.value)
    assert "weight: 3 dimensions, the model has 2" in str(caught.value)


def test_a_fill_lists_what_is_missing_and_what_is_too_much() -> None:
    with pytest.raises(InputError, match="bias, scale"):
        fill_(nn.Linear(3, 2), {"weight": torch.zeros(2, 3), "scale": torch.zeros(1)})


def test_the_registry_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor, self.width = nn.Parameter(torch.ones(4)), 4

        def forward(self, x: Tensor) -> Tensor:
            return x.view(-1, self.width) * self.factor

    monkeypatch.setattr(resize, "_REGISTRY", dict(resize._REGISTRY))

    @register_attributes(Scale)
    def _scale(module: Scale) -> None:
        module.width = module.factor.numel()

    model = nn.Sequential(nn.Linear(3, 4), Scale())
    resize_(model, {"0.weight": (2, 3), "0.bias": (2,), "1.factor": (2,)})
    assert model(torch.randn(5, 3)).shape == (5, 2)
