"""What a model would save if one family shrank as far as it can: for every family at once, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metaprune_cli.graph.structure import Structure
from metaprune_cli.graph.units import Units, find_units


@dataclass(frozen=True, eq=False)
class Savings:
    """What each family could give, if nothing else went.

    A family shrinks to the units that are locked, or to its first unit where none is. A family that is locked as a
    whole is taken as if it were not: its figures say what the lock costs.

    Attributes:
        removable: int64, shape (families,), how many units can go.
        macs: int64, shape (families,), multiply-accumulates of one sample that the model saves.
        params: int64, shape (families,), trainable parameters that it saves.
    """

    removable: Int[Tensor, " families"]
    macs: Int[Tensor, " families"]
    params: Int[Tensor, " families"]


def find_savings(structure: Structure) -> Savings:
    """The savings of every family, in the order of ``units.families``.

    An element between a destination o and a source i goes with family f where o goes with f or i does. So, block by
    block and group by group, with o_f and i_f the neurons that go with f out of O and I:

        saved_f = positions · taps · Σ_g (o_f · I + O · i_f − o_f · i_f)
    """
    units = structure.derive(find_units)
    leaving = _leaving(units)
    families = _families_of(units, leaving)
    count = len(units.families)
    macs = [block.positions * block.size[3] for block in structure.blocks]
    params = [block.size[3] * (block.param in structure.trainable) for block in structure.blocks]
    saved = _saved_in_blocks(structure, families, torch.tensor([macs, params], dtype=torch.int64), count)
    for product in structure.products:
        saved[0] += product.macs_per_neuron * _per_family(families[:, product.neurons], count)
    for feature in structure.features:
        if feature.name in structure.trainable:
            saved[1] += _per_family(families[:, feature.neurons], count)
    removable = units.family_of[leaving & units.prunable].bincount(minlength=count)
    return Savings(removable, saved[0], saved[1])


def _leaving(units: Units) -> Bool[Tensor, " units"]:
    """The units that go when their family shrinks."""
    locked = torch.tensor([family.locked is not None for family in units.families])
    leaving = units.prunable | locked[units.family_of]
    first = torch.tensor([int(family.units[0]) for family in units.families])
    whole = units.family_of[leaving].bincount(minlength=len(first)) == units.sizes
    leaving[first[whole]] = False
    return leaving


def _families_of(units: Units, leaving: Bool[Tensor, " units"]) -> Int[Tensor, "2 neurons"]:
    """The families with which each neuron goes: that of its column and that of its row; -1 for none."""
    family = torch.where(leaving, units.family_of, -1)
    column = family[units.unit_of]
    row = torch.where(units.row_of >= 0, family[units.row_of.clamp(min=0)], -1)
    return torch.stack([column, torch.where(row == column, -1, row)])


def _per_family(families: Int[Tensor, "2 n"], count: int) -> Int[Tensor, " families"]:
    return families[families >= 0].bincount(minlength=count)


def _saved_in_blocks(
    structure: Structure, families: Int[Tensor, "2 neurons"], costs: Int[Tensor, "2 blocks"], count: int
) -> Int[Tensor, "2 families"]:
    """What goes with every family, where a pair of neurons of a block costs ``costs``."""
    groups = torch.tensor([block.size[0] for block in structure.blocks], dtype=torch.int64)
    pair = costs.repeat_interleave(groups, dim=1)
    wide = torch.tensor([block.size[1] for block in structure.blocks], dtype=torch.int64).repeat_interleave(groups)
    deep = torch.tensor([block.size[2] for block in structure.blocks], dtype=torch.int64).repeat_interleave(groups)
    out, out_size = _gone([block.destinations for block in structure.blocks], families, wide, count)
    into, into_size = _gone([block.sources for block in structure.blocks], families, deep, count)
    saved = torch.zeros(2, count, dtype=torch.int64)
    saved.index_add_(1, out % count, pair[:, out // count] * out_size * deep[out // count])
    saved.index_add_(1, into % count, pair[:, into // count] * into_size * wide[into // count])
    both = torch.isin(out, into)
    matched = torch.isin(into, out)  # both lists are sorted, so what they share is in the same order
    shared = out[both]
    saved.index_add_(1, shared % count, -pair[:, shared // count] * out_size[both] * into_size[matched])
    return saved


def _gone(
    sides: list[Tensor], families: Int[Tensor, "2 neurons"], widths: Int[Tensor, " groups"], count: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Sorted keys (group · families + family), and how many neurons of the group go with the family."""
    neurons = torch.cat([torch.empty(0, dtype=torch.int64), *(side.reshape(-1) for side in sides)])
    group = torch.arange(widths.numel()).repeat_interleave(widths)
    family = families[:, neurons]
    keys = (group * count + family)[family >= 0]
    found, sizes = keys.unique(return_counts=True)
    return found, sizes
