"""What a family is worth by itself: the units that would go first set to zero, in no other family any."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metaprune_cli.graph.units import Family, Units


def without_lowest(
    units: Units, family: Family, scores: Float[Tensor, " units"], ratio: float
) -> Bool[Tensor, " units"]:
    """The units that stay when ``ratio`` of one family goes, lowest scores first.

    At least one unit goes and one stays; units that are locked do.
    """
    free = family.units[units.prunable[family.units]]
    most = len(free) if len(free) < len(family.units) else len(free) - 1
    count = min(max(round(ratio * len(family.units)), 1), most)
    kept = torch.ones(units.num_units, dtype=torch.bool)
    kept[free[scores[free].argsort(stable=True)[:count]]] = False
    return kept


def bearable(drops: Mapping[float, float], most: float) -> float:
    """The ratio up to which no more than ``most`` points are lost: between two that were tried, in proportion.

    Nothing goes beyond the first ratio that costs too much, even if a larger one costs less.

    Args:
        drops: by ratio, the points that were lost.
        most: how many may be.
    """
    points = [(0.0, 0.0), *sorted(drops.items())]
    for (low, cheap), (high, dear) in itertools.pairwise(points):
        if dear > most:
            return low + (high - low) * max(most - cheap, 0.0) / (dear - cheap)
    return points[-1][0]
