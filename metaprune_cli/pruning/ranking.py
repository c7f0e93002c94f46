"""In which order units go: a ranking under limits, family by family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaprune_cli.config import Scope
from metaprune_cli.errors import InputError
from metaprune_cli.graph.units import Units


@dataclass(frozen=True, eq=False)
class Limits:
    """What may go of each family; all of shape (families,).

    Attributes:
        most: at most so many units may go.
        least: at least so many must.
        multiple: where units go, what is left is a multiple of this.
        tied: families with one number lose their units together, the i-th of each with the i-th of the others.
    """

    most: Int[Tensor, " families"]
    least: Int[Tensor, " families"]
    multiple: Int[Tensor, " families"]
    tied: Int[Tensor, " families"]


def plain_limits(units: Units, max_ratio: float) -> Limits:
    """No limits but the fraction of every family that may go.

    Raises:
        InputError: ``max_ratio`` is no fraction.
    """
    if not 0 < max_ratio <= 1:
        raise InputError("max_ratio is not a fraction.", expected="above 0, at most 1", got=max_ratio)
    # the tiny addition undoes rounding: 0.29 * 100 is 28.999999999999996
    most = (units.sizes * max_ratio + 1e-9).long()
    return Limits(most, torch.zeros_like(most), torch.ones_like(most), torch.arange(len(most)))


@dataclass(frozen=True, eq=False)
class Order:
    """The units that may go, in the order in which they go.

    Attributes:
        units: int64, shape (removable,).
        ends: int64, shape (steps,): a removal may stop after so many units.
        forced: so many steps are taken whatever the target is.
    """

    units: Int[Tensor, " removable"]
    ends: Int[Tensor, " steps"]
    forced: int


def removal_order(units: Units, scores: Float[Tensor, " units"], scope: Scope, limits: Limits) -> Order:
    """Rank what may go: by score, or by the fraction of the family that is then gone.

    Never among them: locked units, the best unit of every family, and what the limits exclude. Where what is left must
    be a multiple, units go in groups, by their mean score.
    """
    leader = _leaders(units, limits)
    scores = _means(scores, leader)
    candidates = _candidates(units, scores, leader)
    family = units.family_of[candidates]
    gone = _place_in_group(family) + 1
    # group 0 brings the family to a multiple, each one after it takes one multiple away
    multiple, size = limits.multiple[family], units.sizes[family]
    group = ((gone - size % multiple).clamp_min(0) + multiple - 1).div(multiple, rounding_mode="floor")
    end = size % multiple + group * multiple
    available = torch.zeros_like(units.sizes).scatter_reduce(0, family, gone, "amax")
    allowed = end <= torch.minimum(limits.most, available)[family]
    candidates, family, group, end = candidates[allowed], family[allowed], group[allowed], end[allowed]

    groups, of_candidate = torch.unique(torch.stack([family, group]), dim=1, return_inverse=True)
    count = of_candidate.bincount(minlength=groups.size(1))
    first = torch.full_like(count, len(candidates)).scatter_reduce(
        0, of_candidate, torch.arange(len(candidates)), "amin"
    )
    gone_then = torch.zeros_like(count).scatter_reduce(0, of_candidate, end, "amax")
    mean = scores.new_zeros(len(count)).index_add(0, of_candidate, scores[candidates]) / count
    key = gone_then / units.sizes[groups[0]] if scope == "family" else mean
    forced = gone_then - count < limits.least[groups[0]]

    steps = first.argsort()
    steps = steps[key[steps].argsort(stable=True)]
    steps = steps[(~forced)[steps].long().argsort(stable=True)]
    place = torch.empty_like(steps)
    place[steps] = torch.arange(len(steps))
    candidates = candidates[place[of_candidate].argsort(stable=True)]
    return _with_the_tied(candidates, count[steps].cumsum(0), int(forced.sum()), leader)


def _candidates(units: Units, scores: Tensor, leader: Tensor) -> Tensor:
    """Leaders that may go, by score, without the best of every family."""
    ascending = scores.argsort(stable=True)
    rank = torch.empty_like(ascending)
    rank[ascending] = torch.arange(len(ascending))
    best = torch.zeros_like(units.sizes).scatter_reduce(0, units.family_of, rank, "amax")
    removable = units.prunable.clone()
    removable[ascending[best]] = False
    stuck = leader[~units.prunable]
    removable[stuck] = False
    removable &= leader == torch.arange(len(leader))
    return ascending[removable[ascending]]


def _leaders(units: Units, limits: Limits) -> Int[Tensor, " units"]:
    """For every unit the one that speaks for it: itself, or the unit at its place in the first family of those tied."""
    leader = torch.arange(units.num_units)
    first: dict[int, int] = {}
    for number, (tie, family) in enumerate(zip(limits.tied.tolist(), units.families, strict=True)):
        leader[family.units] = units.families[first.setdefault(tie, number)].units
    return leader


def _means(scores: Tensor, leader: Tensor) -> Tensor:
    """Every leader's score is the mean over those it speaks for."""
    total = torch.zeros_like(scores).index_add(0, leader, scores)
    return (total / leader.bincount(minlength=len(leader)).clamp_min(1))[leader]


def _with_the_tied(leaders: Tensor, ends: Tensor, forced: int, leader: Tensor) -> Order:
    """Everyone goes with the leader."""
    place = torch.full_like(leader, len(leaders))
    place[leaders] = torch.arange(len(leaders))
    place = place[leader]
    going = place.argsort(stable=True)[: int((place < len(leaders)).sum())]
    followers = leader[going]
    sizes = torch.zeros_like(leaders).index_add(0, place[followers], torch.ones_like(followers))
    total = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return Order(going, total[ends], forced)


def _place_in_group(group: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """For every element how many elements of the same group come before it."""
    order = group.argsort(stable=True)
    counts = group.bincount()
    start = (counts.cumsum(0) - counts)[group[order]]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - start
    return place
