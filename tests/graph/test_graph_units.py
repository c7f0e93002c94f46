"""Units, families and locks: what can go, together with what, and why the rest cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.units import Family


def family_of(graph: NeuronGraph, entry: str, side: str = "out") -> Family:
    return next(family for family in graph.units.families if (entry, side) in family.parameters)


class Stream(nn.Module):
    """A residual stream of two branches, the second grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 1), nn.BatchNorm2d(6)
        self.branch, self.grouped = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1, groups=2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.branch(x)
        return self.head((x + self.grouped(x)).mean((2, 3)))


def stream() -> NeuronGraph:
    torch.manual_seed(0)
    return encode(Stream().eval(), torch.randn(1, 1, 3, 3))


def test_every_neuron_is_in_one_unit_and_every_unit_in_one_family() -> None:
    graph = stream()
    units = graph.units
    assert torch.equal(units.unit_of.unique(), torch.arange(units.num_units))
    members = torch.cat([family.units for family in units.families])
    assert torch.equal(members.sort().values, torch.arange(units.num_units))
    for number, family in enumerate(units.families):
        assert bool((units.family_of[family.units] == number).all())
    assert units.sizes.tolist() == [family.units.numel() for family in units.families]


def test_a_residual_stream_is_one_family_that_names_all_it_touches() -> None:
    family = family_of(stream(), "stem.weight")
    assert family.name == "stem"
    assert family.locked is None
    touched = {(f"{name}.weight", side) for name in ("branch", "grouped") for side in ("in", "out")}
    assert touched | {("norm.bias", "shift"), ("head.weight", "in")} <= set(family.parameters)


def test_groups_make_units_of_a_channel_from_each() -> None:
    graph = stream()
    family = family_of(graph, "grouped.weight")
    assert family.units.numel() == 3
    grouped = next(block for block in graph.blocks if block.param == "grouped.weight")
    assert torch.equal(graph.units.unit_of[grouped.destinations[0]], graph.units.unit_of[grouped.destinations[1]])


@pytest.mark.parametrize("unit", range(3))
def test_any_unit_can_go_alone(unit: int) -> None:
    graph = stream()
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    kept[family_of(graph, "stem.weight").units[unit]] = False
    small = slice_tensors(graph, kept)
    assert small["stem.weight"].shape == (4, 1, 1, 1)
    assert small["grouped.weight"].shape == (4, 2, 1, 1)


def test_only_what_is_locked_cannot_go() -> None:
    units = stream().units
    for family in units.families:
        assert bool(units.prunable[family.units].any()) == (family.locked is None)
    assert {family.locked for family in units.families} == {
        None,
        "no neuron: a constant",
        "it is an input of the model",
        "it is an output of the model",
    }


def test_the_last_unit_stays() -> None:
    graph = encode(nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2)), torch.randn(1, 3))
    assert family_of(graph, "0.weight").locked == "it has only one unit, and one must stay"
