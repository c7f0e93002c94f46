"""What one family would save: compared with removing it, family by family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.savings import find_savings
from metaprune_cli.graph.slicing import macs_of, params_of
from metaprune_cli.graph.structure import Lock


class Stream(nn.Module):
    """A stream that is added to itself through a layer of its own width, a grouped and a depthwise one, and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.square, self.grouped = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 3, groups=2, padding=1)
        self.depthwise, self.head = nn.Conv2d(6, 6, 3, groups=6), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.depthwise(x + self.square(x) + self.grouped(x))
        return self.head(torch.cat([x, x.relu()], dim=1).mean((2, 3)))


class Attention(nn.Module):
    """One head, with products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.packed, self.out = nn.Linear(3, 8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        q, k, v = self.packed(x).chunk(3, dim=-1)
        return x + self.out((q @ k.transpose(1, 2)).softmax(-1) @ v)


class Heads(nn.Module):
    """Two heads of four dimensions: a neuron goes with its dimension, or with its head."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.q, self.k, self.v, self.out = (nn.Linear(n, 8) for n in (3, 8, 8, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        q, k, v = (layer(x).view(*x.shape[:2], 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return x + self.out(((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).flatten(2))


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "stream": (Stream, torch.randn(1, 1, 5, 5)),
    "heads": (Heads, torch.randn(1, 4, 3)),
    "attention": (Attention, torch.randn(1, 4, 3)),
}


def graph_of(name: str) -> NeuronGraph:
    build, inputs = MODELS[name]
    return encode(build().eval(), inputs)


def without(graph: NeuronGraph, family: int) -> Tensor:
    """All units, but for those that go with ``family``."""
    units = graph.units
    members = units.families[family].units
    gone = members if units.families[family].locked else members[units.prunable[members]]
    if gone.numel() == members.numel():
        gone = gone[1:]
    kept = torch.ones(units.num_units, dtype=torch.bool)
    kept[gone] = False
    return kept


def assert_saved_is_what_removal_saves(graph: NeuronGraph) -> None:
    saved, everything = find_savings(graph.structure), torch.ones(graph.units.num_units, dtype=torch.bool)
    for number in range(len(graph.units.families)):
        kept = without(graph, number)
        assert int(saved.macs[number]) == graph.macs - macs_of(graph, kept)
        assert int(saved.params[number]) == params_of(graph, everything) - params_of(graph, kept)


@pytest.mark.parametrize("name", MODELS)
def test_a_family_saves_what_its_removal_saves(name: str) -> None:
    graph = graph_of(name)
    assert find_savings(graph.structure).macs.max() > 0
    assert ("heads" in {family.kind for family in graph.units.families}) == (name == "heads")
    assert_saved_is_what_removal_saves(graph)


def test_a_family_that_is_locked_in_part_keeps_what_is_locked() -> None:
    graph = graph_of("stream")
    family = next(number for number, family in enumerate(graph.units.families) if family.name == "stem")
    neurons = (graph.units.unit_of == graph.units.families[family].units[1]).nonzero().flatten()
    partly = graph.with_locks((*graph.locks, Lock(neurons, "wanted")))
    assert find_savings(graph.structure).removable[family] == graph.units.families[family].units.numel() - 1
    assert find_savings(partly.structure).removable[family] == partly.units.prunable.sum()
    assert_saved_is_what_removal_saves(partly)


def test_what_is_locked_cannot_go_and_says_what_that_costs() -> None:
    summary = graph_of("stream").summary()
    families = {family["name"]: family for family in summary["families"]}
    assert families["head"]["removable"] == 0
    assert families["head"]["params_saved"] == 2 * 12 + 2
    assert families["constant"]["macs_saved"] == 0
    assert families["stem"]["removable"] > 0
    for family in families.values():
        assert (family["removable"] == 0) == (family["locked"] is not None)
        assert family["macs_share"] == family["macs_saved"] / summary["macs"]
        assert family["params_share"] == family["params_saved"] / summary["parameters"]


def test_a_model_without_parameters_saves_nothing() -> None:
    summary = encode(nn.ReLU(), torch.randn(1, 3)).summary()
    assert {(family["macs_share"], family["params_share"]) for family in summary["families"]} == {(0.0, 0.0)}
