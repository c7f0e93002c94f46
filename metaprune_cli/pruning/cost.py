"""MACs in closed form, prepared once per graph so that a candidate costs a few array operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph


@dataclass(frozen=True, eq=False)
class Cost:
    """How many MACs a graph costs, as a function of the units that are kept.

    MACs(kept) = Σ_blocks positions · taps · Σ_g out_g(kept) · in_g(kept) + Σ_products macs_per_neuron · neurons(kept)

    Every group of every block has two *rows*, its destinations and its sources; all rows of the graph lie end to end.

    Attributes:
        units: int64, shape (e,), the unit of every neuron of every row.
        rows: int64, shape (e,), the row it is in: first all destinations' rows, then all sources' rows, in equal order.
        pair_macs: int64, shape (rows / 2,), MACs of one pair of neurons in a group.
        unit_macs: int64, shape (units,), MACs of the activation-by-activation products that a unit takes part in.
    """

    units: Int[Tensor, " e"]
    rows: Int[Tensor, " e"]
    pair_macs: Int[Tensor, " g"]
    unit_macs: Int[Tensor, " units"]

    @classmethod
    def of(cls, graph: NeuronGraph) -> Cost:
        """Prepare the cost of ``graph``."""
        sides = [block.destinations for block in graph.blocks] + [block.sources for block in graph.blocks]
        groups = torch.tensor([side.size(0) for side in sides], dtype=torch.int64)
        widths = torch.tensor([side.size(1) for side in sides], dtype=torch.int64).repeat_interleave(groups)
        pair_macs = torch.tensor([block.positions * block.size[3] for block in graph.blocks], dtype=torch.int64)
        unit_of = graph.units.unit_of
        unit_macs = torch.zeros(graph.units.num_units, dtype=torch.int64)
        for product in graph.products:
            owners = unit_of[product.neurons]
            unit_macs.index_add_(0, owners, torch.full_like(owners, product.macs_per_neuron))
        return cls(
            units=unit_of[torch.cat([unit_of.new_empty(0), *(side.reshape(-1) for side in sides)])],
            rows=torch.arange(widths.numel()).repeat_interleave(widths),
            pair_macs=pair_macs.repeat_interleave(groups[: len(graph.blocks)]),
            unit_macs=unit_macs,
        )

    def macs(self, kept: Bool[Tensor, " units"]) -> int:
        """Multiply-accumulates of one sample when only the units ``kept`` are left."""
        alive = torch.zeros(2 * len(self.pair_macs), dtype=torch.int64)
        alive.index_add_(0, self.rows, kept[self.units].long())
        destinations, sources = alive.view(2, -1)
        return int((self.pair_macs * destinations * sources).sum() + self.unit_macs[kept].sum())


def speedup(before: int, after: int) -> float:
    """How many times fewer MACs; infinite when none are left."""
    return before / after if after else math.inf
