"""MACs in closed form, prepared once per graph so that a candidate costs a few array operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.units import Units


@dataclass(frozen=True, eq=False)
class Cost:
    """How many MACs a graph costs, as a function of the units that are kept.

    MACs(kept) = Σ_blocks positions · taps · Σ_g out_g(kept) · in_g(kept) + Σ_products macs_per_neuron · neurons(kept)

    Every group of every block has two *sides*, its destinations and its sources; all sides of the graph lie end to end.

    Attributes:
        units: which units every neuron belongs to.
        neurons: int64, shape (e,), the neurons of every side.
        sides: int64, shape (e,), the side each is on: first all destinations' sides, then all sources', in equal order.
        pair_macs: int64, shape (sides / 2,), MACs of one pair of neurons in a group.
        neuron_macs: int64, shape (neurons,), MACs of the activation-by-activation products a neuron takes part in.
    """

    units: Units
    neurons: Int[Tensor, " e"]
    sides: Int[Tensor, " e"]
    pair_macs: Int[Tensor, " g"]
    neuron_macs: Int[Tensor, " neurons"]

    @classmethod
    def of(cls, graph: NeuronGraph) -> Cost:
        """Prepare the cost of ``graph``."""
        sides = [block.destinations for block in graph.blocks] + [block.sources for block in graph.blocks]
        groups = torch.tensor([side.size(0) for side in sides], dtype=torch.int64)
        widths = torch.tensor([side.size(1) for side in sides], dtype=torch.int64).repeat_interleave(groups)
        pair_macs = torch.tensor([block.positions * block.size[3] for block in graph.blocks], dtype=torch.int64)
        neuron_macs = torch.zeros(graph.num_neurons, dtype=torch.int64)
        for product in graph.products:
            neuron_macs.index_add_(0, product.neurons, torch.full_like(product.neurons, product.macs_per_neuron))
        return cls(
            units=graph.units,
            neurons=torch.cat([torch.empty(0, dtype=torch.int64), *(side.reshape(-1) for side in sides)]),
            sides=torch.arange(widths.numel()).repeat_interleave(widths),
            pair_macs=pair_macs.repeat_interleave(groups[: len(graph.blocks)]),
            neuron_macs=neuron_macs,
        )

    def macs(self, kept: Bool[Tensor, " units"]) -> int:
        """Multiply-accumulates of one sample when only the units ``kept`` are left."""
        alive = self.units.alive(kept)
        destinations, sources = self._widths(alive)
        return int((self.pair_macs * destinations * sources).sum() + self.neuron_macs[alive].sum())

    def marginal(self, kept: Bool[Tensor, " units"]) -> Int[Tensor, " units"]:
        """The MACs that every unit adds, or would add, beside what is kept: the derivative of :meth:`macs`.

        That is the difference it makes, but for a unit on both sides of one block, which meets itself there.
        """
        other = self._widths(self.units.alive(kept)).flip(0)  # a destination costs as much as there are sources
        of_neuron = self.neuron_macs.index_add(0, self.neurons, (self.pair_macs * other).flatten()[self.sides])
        total = torch.zeros_like(kept, dtype=torch.int64).index_add_(0, self.units.unit_of, of_neuron)
        on_grid = self.units.on_grid
        return total.index_add_(0, self.units.row_of[on_grid], of_neuron[on_grid])

    def _widths(self, alive: Bool[Tensor, " neurons"]) -> Int[Tensor, "2 g"]:
        """How many neurons of every group's destinations, and of its sources, are left."""
        count = torch.zeros(2 * len(self.pair_macs), dtype=torch.int64)
        return count.index_add_(0, self.sides, alive[self.neurons].long()).view(2, -1)


def speedup(before: float, after: float) -> float:
    """How many times fewer MACs (or less of anything else); infinite when none are left."""
    return before / after if after else math.inf
