"""Units, the smallest things that can be removed, and families, what people call a layer's channels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metaprune_cli.graph.components import planes
from metaprune_cli.graph.structure import Structure

Kind = Literal["channels", "heads"]


def titled(name: str, kind: str) -> str:
    """A family as people are shown it: the heads of a layer have the same name as their channels."""
    return name if kind == "channels" else f"{name} ({kind})"


@dataclass(frozen=True, eq=False)
class Family:
    """Units that touch the same parameter dimensions.

    Attributes:
        name: the first layer whose neurons belong to it.
        units: int64, shape (n,), unit ids.
        locked: why none of them can be removed, or None.
        parameters: the (state-dict entry, side) pairs they touch; side is "out", "in" or a feature's kind.
        kind: whether its units are columns (channels, per-head dimensions) or rows (heads).
    """

    name: str
    units: Tensor
    locked: str | None
    parameters: tuple[tuple[str, str], ...]
    kind: Kind = "channels"

    @property
    def kin(self) -> tuple[str, Kind, int]:
        """What families of layers of one kind have in common: their name but for its numbers, their kind and size."""
        return re.sub(r"\d+", "#", self.name), self.kind, len(self.units)

    @property
    def home(self) -> str:
        """The module that its layer is a part of; "" where that is the model."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class Units:
    """Which neuron belongs to which units, which unit to which family.

    A neuron stays if the unit of its column stays and, where it has one, the unit of its row: removing a per-head
    dimension removes it in all heads, removing a head removes all its dimensions.

    Attributes:
        unit_of: int64, shape (neurons,), the unit of the neuron's column.
        row_of: int64, shape (neurons,), the unit of its row; -1 for none.
        family_of: int64, shape (units,).
        families: in order of their first unit.
        prunable: bool, shape (units,): not locked.
    """

    unit_of: Int[Tensor, " neurons"]
    row_of: Int[Tensor, " neurons"]
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

    @property
    def signature(self) -> tuple[tuple[str, int], ...]:
        """Name and size of every family: the same for models of one structure."""
        return tuple((family.name, len(family.units)) for family in self.families)

    @cached_property
    def on_grid(self) -> Int[Tensor, " members"]:
        """The neurons that have a row besides their column (a head neuron's two units are one)."""
        return ((self.row_of >= 0) & (self.row_of != self.unit_of)).nonzero().flatten()

    def alive(self, kept: Bool[Tensor, " units"]) -> Bool[Tensor, " neurons"]:
        """Which neurons stay when the units ``kept`` stay."""
        alive = kept[self.unit_of]
        if self.on_grid.numel():
            alive[self.on_grid] &= kept[self.row_of[self.on_grid]]
        return alive


def find_units(structure: Structure) -> Units:
    """Couple neurons into units (connected components in each plane) and group units by what they touch."""
    both = torch.cat([structure.identity, structure.ties], dim=1)
    column, row = planes(structure.num_neurons, both, structure.columns, structure.rows, structure.heads)
    _, labels = torch.cat([column, row]).unique(return_inverse=True)
    unit_of, row_of = (labels - int(bool((row < 0).any()))).view(2, -1)
    count = int(labels.max()) + 1 - int(bool((row < 0).any()))
    members = _members(unit_of, row_of)
    lock_of = _locks(structure, unit_of, row_of, count)
    slots, pairs = _touches(structure, unit_of, row_of, count)
    is_row = torch.zeros(count, dtype=torch.bool)
    is_row[row_of[row_of >= 0]] = True
    family_of = _group(pairs, len(slots), is_row)
    families, prunable = [], torch.zeros(count, dtype=torch.bool)
    names = _unit_names(structure, members, count)
    order = family_of.argsort(stable=True)
    ends = pairs[0].bincount(minlength=count).cumsum(0)
    for units in order.split(family_of.bincount().tolist()):
        free = lock_of[units] == len(structure.locks)
        leader = int(units[0])
        touched = tuple(slots[s] for s in pairs[1, int(ends[leader - 1]) if leader else 0 : int(ends[leader])].tolist())
        locked = None if bool(free.any()) else structure.locks[int(lock_of[leader])].reason
        if locked is None and units.numel() == 1:
            locked, free = "it has only one unit, and one must stay", torch.zeros_like(free)
        if locked is None and not touched:
            locked, free = "it owns no parameters", torch.zeros_like(free)
        prunable[units] = free
        families.append(Family(names[leader], units, locked, touched, "heads" if bool(is_row[leader]) else "channels"))
    return Units(unit_of, row_of, family_of, tuple(families), prunable)


def _members(unit_of: Tensor, row_of: Tensor) -> Tensor:
    """(unit, neuron) pairs of both planes: int64, shape (2, m)."""
    on_grid = (row_of >= 0).nonzero().flatten()
    neurons = torch.cat([torch.arange(unit_of.numel()), on_grid])
    return torch.stack([torch.cat([unit_of, row_of[on_grid]]), neurons])


def _locks(structure: Structure, unit_of: Tensor, row_of: Tensor, count: int) -> Tensor:
    """For every unit the number of the first lock that holds it; as many as there are locks for none."""
    first = torch.full((count,), len(structure.locks))
    for number in reversed(range(len(structure.locks))):
        lock = structure.locks[number]
        if lock.plane != "row":
            first[unit_of[lock.neurons]] = number
        if lock.plane != "column":
            rows = row_of[lock.neurons]
            first[rows[rows >= 0]] = number
    return first


def _touches(structure: Structure, unit_of: Tensor, row_of: Tensor, count: int) -> tuple[list[tuple[str, str]], Tensor]:
    """Slots (entry, side), and the distinct (unit, slot) pairs sorted by unit."""
    slots: list[tuple[str, str]] = []
    keys = [torch.empty(0, dtype=torch.int64)]
    members: list[Tensor] = []
    for block in structure.blocks:
        slots += [(block.param, "out"), (block.param, "in")]
        members += [block.destinations, block.sources]
    for feature in structure.features:
        slots.append((feature.name, feature.kind))
        members.append(feature.neurons)
    for slot, neurons in enumerate(members):
        met = torch.zeros(count + 1, dtype=torch.bool)
        met[unit_of[neurons]] = True
        met[row_of[neurons]] = True  # -1, where there is no row, is the last place
        keys.append(met[:count].nonzero().flatten() * len(slots) + slot)
    flat = torch.cat(keys).sort().values
    return slots, torch.stack([flat // max(len(slots), 1), flat % max(len(slots), 1)])


def _group(pairs: Tensor, num_slots: int, is_row: Tensor) -> Tensor:
    """Family of each unit: equal kind and equal sets of slots (by a random 62-bit hash), in order of the first unit."""
    count = is_row.numel()
    hashes = torch.randint(2**62, (num_slots + 1,), generator=torch.Generator().manual_seed(0))
    signature = (is_row * hashes[-1]).index_add(0, pairs[0], hashes[pairs[1]])
    _, family = signature.unique(return_inverse=True)
    first = torch.full((int(family.max()) + 1,), count).scatter_reduce(0, family, torch.arange(count), "amin")
    rank = torch.empty_like(first)
    rank[first.argsort()] = torch.arange(first.numel())
    return rank[family]


def _unit_names(structure: Structure, members: Tensor, count: int) -> list[str]:
    """For each unit the layer its first neuron lies in."""
    first = torch.full((count,), structure.num_neurons).scatter_reduce(0, members[0], members[1], "amin")
    starts = torch.tensor([layer.start for layer in structure.layers])
    where = torch.searchsorted(starts, first, right=True) - 1
    return [structure.layers[i].name for i in where.tolist()]
