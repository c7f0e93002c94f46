"""What a block of weights is told of the widths: fractions that are left, its own, its neighbours' or everybody's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metaprune_cli.config import EncodingName
from metaprune_cli.graph.structure import EdgeBlock
from metaprune_cli.graph.units import Units


class Encoding:
    """For every block a vector e of fractions in [0, 1].

    ``own``: what is left of its destinations and of its sources (several families of a concatenation together);
    ``neighbours``: also of the sources of those before it and the destinations of those after it (the published three
    numbers of a bottleneck are among them); ``whole``: its own, and of every free family.
    """

    def __init__(self, units: Units, blocks: Sequence[EdgeBlock], name: EncodingName) -> None:
        self.name: EncodingName = name
        self._units, self._count = units, len(blocks)
        ends = [block.destinations.flatten() for block in blocks] + [block.sources.flatten() for block in blocks]
        self._neurons = torch.cat([torch.empty(0, dtype=torch.int64), *ends])
        self._sizes = torch.tensor([end.numel() for end in ends], dtype=torch.int64)
        self._sides = torch.arange(len(ends)).repeat_interleave(self._sizes)
        if name == "neighbours":
            self._before, self._after = _neighbours(units, blocks)
        self._free = torch.tensor([n for n, family in enumerate(units.families) if family.locked is None])

    @property
    def length(self) -> int:
        """Of each vector."""
        return {"own": 2, "neighbours": 4, "whole": 2 + len(self._free)}[self.name]

    def of(self, kept: Bool[Tensor, " units"]) -> Float[Tensor, "blocks length"]:
        """The vectors of all blocks where these units are left."""
        alive = self._units.alive(kept)
        left = torch.zeros(2 * self._count, dtype=torch.int64).index_add(0, self._sides, alive[self._neurons].long())
        own = (left / self._sizes.clamp_min(1)).float().view(2, -1)
        if self.name == "own":
            return own.t()
        if self.name == "neighbours":
            return torch.stack([*own, _mean(self._before, own[1]), _mean(self._after, own[0])], 1)
        family = self._units.family_of
        shares = torch.zeros(len(self._units.families)).index_add(0, family, kept.float()) / self._units.sizes
        return torch.cat([own.t(), shares[self._free].expand(self._count, -1)], 1)


def _neighbours(units: Units, blocks: Sequence[EdgeBlock]) -> tuple[Tensor, Tensor]:
    """Who comes before whom, and after: float (blocks, blocks), 1 where units that the one makes the other reads."""
    makes, reads = torch.zeros(2, len(blocks), units.num_units)
    for number, block in enumerate(blocks):
        makes[number, units.unit_of[block.destinations.flatten()]] = 1
        reads[number, units.unit_of[block.sources.flatten()]] = 1
    before = (reads @ makes.t() > 0).float()
    return before, before.t().contiguous()


def _mean(who: Tensor, values: Tensor) -> Tensor:
    """The mean over each one's neighbours; 1, nothing is gone, where there are none."""
    count = who.sum(1)
    return torch.where(count > 0, (who @ values) / count.clamp_min(1), torch.ones_like(count))
