"""Which widths a step of training sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from metaprune_cli.config import SamplingName
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.width_space import Genes, WidthSpace

BAND = 0.9
"""Of a budget, that widths drawn for it cost at least, where the grids are fine enough."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws widths.

    ``uniform``, as published: every gene by itself, so that the multiply-adds are about a third of the whole and
    hardly ever a sixth. ``budget``: a speed-up, log-uniform between 1 and ``speedup_max``, and random widths for it.

    Attributes:
        space: of the widths.
        cost: of the graph.
        how: one of the two.
        speedup_max: the largest that is drawn; never more than the smallest widths have.
    """

    space: WidthSpace
    cost: Cost
    how: SamplingName = "budget"
    speedup_max: float = 8.0

    def draw(self, generator: torch.Generator) -> Genes:
        """Random widths."""
        if self.how == "uniform":
            return self.space.uniform(generator)
        whole = self.cost.macs(self.space.kept(self.space.whole()))
        smallest = self.cost.macs(self.space.kept(self.space.smallest()))
        largest = min(self.speedup_max, whole / max(smallest, 1))
        speedup = math.exp(float(torch.rand((), generator=generator)) * math.log(largest))
        most = max(whole / speedup, smallest)
        return self.space.within(generator, self.cost.macs, BAND * most, most)

    def mean_macs(self, draws: int = 64) -> float:
        """Multiply-adds of what is drawn, on average."""
        generator = torch.Generator().manual_seed(0)
        return sum(self.cost.macs(self.space.kept(self.draw(generator))) for _ in range(draws)) / draws

    def __deepcopy__(self, memo: object) -> Sampler:
        """Nothing in it ever changes."""
        return self
