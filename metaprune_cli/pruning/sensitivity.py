"""What a family is worth by itself: the units that would go first taken away, in no other family any.

From what that costs at a few numbers of units follows in which order those of all families go: the harm that the next
one of a family does, for what it saves, by

    h(r) between two numbers that were tried: log h linear in log r, and the largest convex function below that

so that a removal to any target minimises Σ_f h_f(r_f), as far as families do their harm by themselves. (That layers
differ in what they can lose, as measured one at a time, is Han et al.'s, arXiv 1506.02626.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaprune_cli.graph.units import Family, Units


def without_lowest(
    units: Units, family: Family, scores: Float[Tensor, " units"], ratio: float
) -> Bool[Tensor, " units"]:
    """The units that stay when ``ratio`` of one family goes, lowest scores first.

    At least one unit goes and one stays; units that are locked do.
    """
    free = len(free_units(units, family, scores))
    most = free if free < len(family.units) else free - 1
    return without(units, family, scores, min(max(round(ratio * len(family.units)), 1), most))


def without(units: Units, family: Family, scores: Float[Tensor, " units"], count: int) -> Bool[Tensor, " units"]:
    """The units that stay when so many of one family go, lowest scores first; those that are locked do."""
    kept = torch.ones(units.num_units, dtype=torch.bool)
    kept[free_units(units, family, scores)[:count]] = False
    return kept


def free_units(units: Units, family: Family, scores: Float[Tensor, " units"]) -> Int[Tensor, " free"]:
    """The units of a family that may go, lowest scores first."""
    free = family.units[units.prunable[family.units]]
    return free[scores[free].argsort(stable=True)]


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


def numbers_to_try(most: int, ratios: Sequence[float]) -> tuple[int, ...]:
    """How many units of a family to take away: these fractions of the most that may go, at least one."""
    return tuple(sorted({max(round(ratio * most), 1) for ratio in ratios}))


def added_harm(harms: Mapping[int, float], count: int) -> Float[Tensor, " count"]:
    """What each further unit of a family costs, the first to go first; float64, it never falls.

    Args:
        harms: by number of units that were taken away, what that costs; at least one number.
        count: of units.
    """
    tried = sorted(harms)
    floor = max(max(harms.values()), 1e-30) * 1e-6  # chance can make a small harm look like none
    known = [(math.log(number), math.log(max(harms[number], floor))) for number in tried]
    slopes = [(high[1] - low[1]) / (high[0] - low[0]) for low, high in itertools.pairwise(known)] or [1.0]
    points = [(0, 0.0)]
    for number in range(1, count + 1):
        place = sum(number > one for one in tried[1:-1]) if len(tried) > 1 else 0
        steepness = max(slopes[place], 1.0) if number < tried[0] else slopes[place]
        at, height = known[place]
        points.append((number, math.exp(height + steepness * (math.log(number) - at))))
    added = torch.empty(count, dtype=torch.float64)
    for (low, cheap), (high, dear) in itertools.pairwise(_hull(points)):
        added[low:high] = max(dear - cheap, 0.0) / (high - low)
    return added.cummax(0).values


def _hull(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The corners of the largest convex function that is nowhere above these points."""
    hull: list[tuple[int, float]] = []
    for x, y in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) >= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return hull


def in_order(
    scores: Float[Tensor, " units"], units: Units, added: Mapping[int, Float[Tensor, " free"]]
) -> Float[Tensor, " units"]:
    """Scores by which units of all families compare; float64, within a family they are ordered as before.

    Args:
        scores: that order the units of each family.
        units: of the model.
        added: by family, what each further unit that may go costs, the first to go first; the others' go last.
    """
    most = max((float(values.max()) for values in added.values() if len(values)), default=0.0) or 1.0
    found = torch.full_like(scores, 2 * most, dtype=torch.float64)
    for number, values in added.items():
        ascending = free_units(units, units.families[number], scores)
        apart = 1e-9 * most * torch.arange(len(ascending), dtype=torch.float64)  # equal ones stay in their order
        found[ascending] = values[: len(ascending)] + apart
    return found
