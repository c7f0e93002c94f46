"""One test an operator: what it couples, what it passes on, what it locks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.units import Family


class Between(nn.Module):
    """Two convolutions of six channels into ``middle(model, a, b)``, whose result goes into a linear head."""

    def __init__(
        self, middle: Callable[[Any, Tensor, Tensor], Tensor], width: int = 6, **extra: nn.Module | nn.Parameter
    ) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.middle = middle
        for name, value in extra.items():
            setattr(self, name, value)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.middle(self, self.a(x), self.b(x))
        return self.head(out.flatten(2).mean(2) if out.dim() > 2 else out)


def families_of(model: nn.Module, example: Tensor | None = None) -> tuple[NeuronGraph, dict[str, Family]]:
    """The graph, and its families of channels by the entry whose rows they own."""
    graph = encode(model, torch.randn(1, 3, 8, 8) if example is None else example)
    owners = {}
    for family in [family for family in graph.units.families if family.kind == "channels"]:
        for entry, side in family.parameters:
            if side == "out":
                owners[entry] = family
    return graph, owners


@pytest.mark.parametrize("middle", [torch.add, torch.mul, torch.sub, torch.maximum], ids=lambda f: f.__name__)
def test_elementwise_meetings_couple(middle: Callable[[Tensor, Tensor], Tensor]) -> None:
    graph, owners = families_of(Between(lambda m, a, b: middle(a, b)))
    assert owners["a.weight"] is owners["b.weight"]
    assert owners["a.weight"].units.numel() == 6
    assert owners["a.weight"].locked is None
    assert graph.identity.size(1) == 6


def test_concatenation_keeps_its_parts_apart() -> None:
    _, owners = families_of(Between(lambda m, a, b: torch.cat([a, b], 1), 12))
    assert owners["a.weight"] is not owners["b.weight"]
    assert owners["a.weight"].units.numel() == owners["b.weight"].units.numel() == 6


def test_equal_chunks_are_tied() -> None:
    def swish_gate(_: Any, a: Tensor, b: Tensor) -> Tensor:
        first, second = a.chunk(2, dim=1)
        return torch.cat([first * second.sigmoid(), b], 1)

    _, owners = families_of(Between(swish_gate, 9))
    assert owners["a.weight"].units.numel() == 3
    assert owners["a.weight"].locked is None


def test_channel_shuffle_needs_no_code_of_its_own() -> None:
    def shuffle(_: Any, a: Tensor, b: Tensor) -> Tensor:
        n, c, h, w = a.shape
        return a.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w) + b

    graph, owners = families_of(Between(shuffle))
    assert owners["a.weight"] is owners["b.weight"]
    assert owners["a.weight"].units.numel() == 3
    # channel 1 of the sum is channel 3 of the shuffled operand
    a, b = (next(block for block in graph.blocks if block.param == f"{n}.weight").destinations[0] for n in "ab")
    assert {tuple(pair) for pair in graph.identity.T.tolist()} >= {(int(a[3]), int(b[1]))}


def test_a_slice_with_python_constants_is_left_to_the_program() -> None:
    _, owners = families_of(Between(lambda m, a, b: a[:, 1:6].reshape(-1, 5, 64).mean(2), 5))
    assert owners["a.weight"].locked is None
    assert owners["b.weight"].locked is None or "parameters" in str(owners["b.weight"].locked)


def test_a_gate_broadcast_over_channels_is_locked_not_coupled() -> None:
    model = Between(lambda m, a, b: a * m.gate(b), gate=nn.Conv2d(6, 1, 1))
    _, owners = families_of(model)
    assert owners["gate.weight"].locked is not None
    assert owners["a.weight"].units.numel() == 6
    assert owners["a.weight"].locked is None


def test_squeeze_and_excitation_couples_the_gate_with_its_channels() -> None:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 2, 1), nn.ReLU(), nn.Conv2d(2, 6, 1), nn.Sigmoid())
    model = Between(lambda m, a, b: a * m.gate(a) + b, gate=gate)
    _, owners = families_of(model)
    assert owners["gate.3.weight"] is owners["a.weight"]
    assert owners["gate.1.weight"].units.numel() == 2


@pytest.mark.parametrize(("groups", "units"), [(1, 6), (2, 3), (3, 2), (6, 6)])
def test_grouped_convolutions_stay_rectangular(groups: int, units: int) -> None:
    convolution = nn.Conv2d(6, 12, 3, padding=1, groups=groups)
    model = Between(lambda m, a, b: m.convolution(a), 12, convolution=convolution)
    _, owners = families_of(model)
    assert owners["a.weight"].units.numel() == units
    assert owners["a.weight"].locked is None
    if groups == 6:
        assert owners["convolution.weight"] is owners["a.weight"]


def test_transposed_convolution() -> None:
    up = nn.ConvTranspose2d(6, 4, 2, stride=2)
    model = Between(lambda m, a, b: m.up(a), 4, up=up)
    graph, owners = families_of(model)
    assert owners["up.weight"].units.numel() == 4
    block = next(b for b in graph.blocks if b.param == "up.weight")
    assert block.size == (1, 4, 6, 4)
    assert torch.equal(block.weights(graph.tensors)[0, 1, 2], up.weight[2, 1].detach().flatten())


def test_norm_parameters_are_features_of_the_neurons_they_meet() -> None:
    norm = nn.BatchNorm2d(6)
    model = Between(lambda m, a, b: m.norm(a), norm=norm)
    graph, _ = families_of(model)
    block = next(b for b in graph.blocks if b.param == "a.weight")
    kinds = {f.name: f.kind for f in graph.features if f.name.startswith("norm.")}
    assert kinds == {
        "norm.weight": "scale",
        "norm.bias": "shift",
        "norm.running_mean": "mean",
        "norm.running_var": "variance",
    }
    for feature in graph.features:
        if feature.name.startswith("norm."):
            assert torch.equal(feature.neurons, block.destinations[0])


def test_a_group_norm_ties_its_groups_and_spans_them() -> None:
    norm = nn.GroupNorm(2, 6)
    model = Between(lambda m, a, b: m.norm(a), norm=norm)
    graph, owners = families_of(model)
    assert owners["a.weight"].units.numel() == 3
    assert {span.operator for span in graph.spans} == {"GroupNorm"}


def test_a_mean_over_channels_spans_them() -> None:
    graph, owners = families_of(Between(lambda m, a, b: a - a.mean(1, keepdim=True)))
    assert {span.operator for span in graph.spans} == {"mean"}
    assert owners["a.weight"].locked is None


def test_an_activation_with_parameters_of_its_own() -> None:
    slope = nn.PReLU(6)
    model = Between(lambda m, a, b: m.slope(a), slope=slope)
    graph, owners = families_of(model)
    assert {f.kind for f in graph.features if f.name == "slope.weight"} == {"scale"}
    assert owners["a.weight"].locked is None


def test_a_layer_scale_is_a_feature() -> None:
    gamma = nn.Parameter(torch.ones(6, 1, 1))
    model = Between(lambda m, a, b: m.gamma * a + b, gamma=gamma)
    graph, _ = families_of(model)
    assert {f.kind for f in graph.features if f.name == "gamma"} == {"scale"}


def test_one_scalar_for_all_channels_is_kept_verbatim() -> None:
    alpha = nn.Parameter(torch.ones(1))
    model = Between(lambda m, a, b: m.alpha * a, alpha=alpha)
    graph, owners = families_of(model)
    assert graph.verbatim["alpha"] == "one value for many neurons"
    assert owners["a.weight"].locked is None


def test_an_unknown_operator_is_an_honest_boundary() -> None:
    _, owners = families_of(Between(lambda m, a, b: torch.linalg.qr(a)[1]))
    assert "which has no rule" in str(owners["a.weight"].locked)


def test_inputs_and_outputs_are_locked() -> None:
    graph, owners = families_of(Between(lambda m, a, b: a + b))
    assert owners["head.weight"].locked == "it is an output of the model"
    reasons = {family.locked for family in graph.units.families}
    assert "it is an input of the model" in reasons


def test_a_module_used_twice_couples_both_uses() -> None:
    shared = nn.Conv2d(6, 6, 1)
    model = Between(lambda m, a, b: torch.cat([m.shared(a), m.shared(b)], 1), 12, shared=shared)
    graph, owners = families_of(model)
    assert owners["a.weight"] is owners["b.weight"]
    block = next(b for b in graph.blocks if b.param == "shared.weight")
    assert block.positions == 2 * 64


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_by_hand(heads: int) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 8)
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x)
            q, k, v = (f(h).unflatten(-1, (heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.head(h + self.out(mixed))

    model, example = Attention(), torch.randn(1, 5, 3)
    _, owners = families_of(model, example)
    assert owners["q.weight"] is owners["k.weight"]
    assert owners["q.weight"].units.numel() == 8 // heads
    assert owners["v.weight"] is not owners["q.weight"]
    assert owners["embed.weight"] is owners["out.weight"]
    assert all(owners[f"{name}.weight"].locked is None for name in ("q", "v", "embed"))


def test_position_embedding_and_class_token() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 6)
            self.token = nn.Parameter(torch.randn(1, 1, 6))
            self.position = nn.Parameter(torch.randn(1, 5, 6))
            self.norm = nn.LayerNorm(6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.cat([self.token.expand(x.size(0), -1, -1), self.embed(x)], 1) + self.position
            return self.head(self.norm(h)[:, 0])

    graph, owners = families_of(Tokens(), torch.randn(1, 4, 3))
    kinds = {f.name: f.kind for f in graph.features}
    assert kinds["token"] == "constant"
    assert kinds["position"] == "position"
    assert kinds["norm.weight"] == "scale"
    assert owners["embed.weight"].units.numel() == 6
    assert {"LayerNorm"} == {span.operator for span in graph.spans}


def test_what_is_reduced_from_nothing_is_a_constant() -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.a(x)
            return self.b(h), h[:, :0].sum()

    _, owners = families_of(Empty(), torch.randn(1, 6))
    assert owners["a.weight"].units.numel() == 8
    assert owners["a.weight"].locked is None
