"""Units, the smallest things that can be removed, and families, what people call a layer's channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metaprune_cli.graph.components import components
from metaprune_cli.graph.neuron_graph import NeuronGraph


@dataclass(frozen=True, eq=False)
class Family:
    """Units that touch the same parameter dimensions.

    Attributes:
        name: the first layer whose neurons belong to it.
        units: int64, shape (n,), unit ids.
        locked: why none of them can be removed, or None.
        parameters: the (state-dict entry, side) pairs they touch; side is "out", "in" or a feature's kind.
    """

    name: str
    units: Tensor
    locked: str | None
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Units:
    """Which neuron belongs to which unit, which unit to which family.

    Attributes:
        unit_of: int64, shape (neurons,).
        family_of: int64, shape (units,).
        families: in order of their first neuron.
        prunable: bool, shape (units,): not locked.
    """

    unit_of: Int[Tensor, " neurons"]
    family_of: Int[Tensor, " units"]
    families: tuple[Family, ...]
    prunable: Bool[Tensor, " units"]

    @property
    def num_units(self) -> int:
        """How many units there are, locked ones included."""
        return self.family_of.numel()

    @cached_property
    def sizes(self) -> Int[Tensor, " families"]:
        """Units per family."""
        return self.family_of.bincount(minlength=len(self.families))


def find_units(graph: NeuronGraph) -> Units:
    """Couple neurons into units (connected components) and group units by what they touch."""
    pairs = torch.cat([graph.identity, graph.ties], dim=1)
    _, unit_of = components(graph.num_neurons, pairs).unique(return_inverse=True)
    count = int(unit_of.max()) + 1
    reasons = _lock_reasons(graph, unit_of)
    slots, pairs = _touches(graph, unit_of)
    family_of = _group(pairs, len(slots), count)
    families, prunable = [], torch.zeros(count, dtype=torch.bool)
    names = _unit_names(graph, unit_of, count)
    order = family_of.argsort(stable=True)
    for members in order.split(family_of.bincount().tolist()):
        free = torch.tensor([int(u) not in reasons for u in members])
        leader = int(members[0])
        touched = tuple(slots[s] for s in pairs[1, pairs[0] == leader].tolist())
        locked = None if bool(free.any()) else reasons[leader]
        if locked is None and members.numel() == 1:
            locked, free = "it has only one unit, and one must stay", torch.zeros_like(free)
        if locked is None and not touched:
            locked, free = "it owns no parameters", torch.zeros_like(free)
        prunable[members] = free
        families.append(Family(names[leader], members, locked, touched))
    return Units(unit_of, family_of, tuple(families), prunable)


def _lock_reasons(graph: NeuronGraph, unit_of: Tensor) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for lock in graph.locks:
        for unit in unit_of[lock.neurons].unique().tolist():
            reasons.setdefault(unit, lock.reason)
    return reasons


def _touches(graph: NeuronGraph, unit_of: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Slots (entry, side), and the distinct (unit, slot) pairs sorted by unit."""
    slots: list[tuple[str, str]] = []
    keys = [torch.empty(0, dtype=torch.int64)]
    members: list[Tensor] = []
    for block in graph.blocks:
        slots += [(block.param, "out"), (block.param, "in")]
        members += [block.destinations, block.sources]
    for feature in graph.features:
        slots.append((feature.name, feature.kind))
        members.append(feature.neurons)
    for slot, neurons in enumerate(members):
        keys.append(unit_of[neurons.reshape(-1)].unique() * len(slots) + slot)
    flat = torch.cat(keys).sort().values
    return slots, torch.stack([flat // max(len(slots), 1), flat % max(len(slots), 1)])


def _group(pairs: Tensor, num_slots: int, count: int) -> Tensor:
    """Family of each unit: equal sets of slots (by a random 62-bit hash), numbered in order of the first unit."""
    generator = torch.Generator().manual_seed(0)
    hashes = torch.randint(2**62, (num_slots,), generator=generator)
    signature = torch.zeros(count, dtype=torch.int64).index_add(0, pairs[0], hashes[pairs[1]])
    _, family = signature.unique(return_inverse=True)
    first = torch.full((int(family.max()) + 1,), count).scatter_reduce(0, family, torch.arange(count), "amin")
    rank = torch.empty_like(first)
    rank[first.argsort()] = torch.arange(first.numel())
    return rank[family]


def _unit_names(graph: NeuronGraph, unit_of: Tensor, count: int) -> list[str]:
    """For each unit the layer its first neuron lies in."""
    first = torch.full((count,), graph.num_neurons).scatter_reduce(0, unit_of, torch.arange(graph.num_neurons), "amin")
    starts = torch.tensor([layer.start for layer in graph.layers])
    where = torch.searchsorted(starts, first, right=True) - 1
    return [graph.layers[i].name for i in where.tolist()]
