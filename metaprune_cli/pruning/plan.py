"""What goes and what stays: a plan is pure data, made before anything is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaprune_cli.config import Scope
from metaprune_cli.errors import InputError, NumericsError, TargetError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import params_of
from metaprune_cli.graph.units import Family, Units
from metaprune_cli.pruning.cost import Cost, speedup


@dataclass(frozen=True)
class FamilyPlan:
    """What happens to one family.

    Attributes:
        name: the family's name.
        before: number of its units.
        after: number of them that stay.
        kept: which of them stay, 0 to before - 1, ascending.
        locked: why none of them could go; None where some could.
    """

    name: str
    before: int
    after: int
    kept: tuple[int, ...]
    locked: str | None


@dataclass(frozen=True, eq=False)
class Plan:
    """Which units of a graph stay, and what that gains.

    Attributes:
        kept: bool, shape (units,).
        macs_before: multiply-accumulates of one sample, with all units; ``macs_after`` without those that go.
        params_before: trainable parameters, likewise.
        requested: the speed-up that was asked for.
        families: the same decision, family by family.
    """

    kept: Bool[Tensor, " units"]
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    requested: float
    families: tuple[FamilyPlan, ...]

    @property
    def speedup(self) -> float:
        """MACs before, divided by MACs after."""
        return speedup(self.macs_before, self.macs_after)

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {
            "requested": self.requested,
            "speedup": self.speedup,
            "macs": {"before": self.macs_before, "after": self.macs_after},
            "params": {"before": self.params_before, "after": self.params_after},
            "families": [
                {"name": f.name, "before": f.before, "after": f.after, "kept": list(f.kept), "locked": f.locked}
                for f in self.families
            ],
        }


def make_plan(
    graph: NeuronGraph,
    scores: Float[Tensor, " units"],
    speedup: float,
    *,
    scope: Scope = "global",
    max_ratio: float = 0.8,
) -> Plan:
    """Decide which units go: the lowest scores first, as few as reach ``speedup``.

    Args:
        graph: the structure; its tensors do not matter.
        scores: one number per unit, the lowest goes first, shape (units,).
        speedup: MACs before / MACs after, to be reached or exceeded by less than one unit.
        scope: ``global`` ranks the units of all families together; ``family`` takes the same fraction of each.
        max_ratio: the largest fraction of a family that may go.

    Raises:
        TargetError: the speed-up is out of reach (the nearest feasible one is named), or nothing would be removed.
        InputError: ``max_ratio`` is not a fraction, or the scores do not fit the graph.
        NumericsError: a score is not finite.
    """
    cost = Cost.of(graph)
    kept = _select(graph, cost, scores, speedup, scope, max_ratio)
    everything = torch.ones_like(kept)
    return Plan(
        kept=kept,
        macs_before=cost.macs(everything),
        macs_after=cost.macs(kept),
        params_before=params_of(graph, everything),
        params_after=params_of(graph, kept),
        requested=speedup,
        families=tuple(_family_plan(family, kept) for family in graph.units.families),
    )


def select(
    graph: NeuronGraph,
    scores: Float[Tensor, " units"],
    speedup: float,
    scope: Scope = "global",
    max_ratio: float = 0.8,
) -> Bool[Tensor, " units"]:
    """The units that ``make_plan`` would keep, and nothing else: milliseconds, for use inside a training step."""
    return _select(graph, Cost.of(graph), scores, speedup, scope, max_ratio)


def _select(
    graph: NeuronGraph, cost: Cost, scores: Tensor, target: float, scope: Scope, max_ratio: float
) -> Bool[Tensor, " units"]:
    """Bisect on how many units of the ranking go; MACs never rise along it."""
    scores = scores.detach().cpu()
    _check_arguments(graph.units, scores, target, max_ratio)
    order = removal_order(graph.units, scores, scope, max_ratio)

    def without(count: int) -> Tensor:
        kept = torch.ones(graph.units.num_units, dtype=torch.bool)
        kept[order[:count]] = False
        return kept

    before = cost.macs(without(0))
    limit = before / target
    if cost.macs(without(len(order))) > limit:
        raise _out_of_reach(graph.units, speedup(before, cost.macs(without(len(order)))), target, max_ratio)
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if cost.macs(without(middle)) <= limit:
            high = middle
        else:
            low = middle
    return without(high)


def removal_order(
    units: Units, scores: Float[Tensor, " units"], scope: Scope, max_ratio: float
) -> Int[Tensor, " removable"]:
    """The units that may go, in the order in which they go.

    Never among them: locked units, the best unit of every family, and what exceeds ``max_ratio`` of a family. The scope
    is only the key of the ranking: the score, or the fraction of the family that is then gone.
    """
    ascending = scores.argsort(stable=True)
    rank = torch.empty_like(ascending)
    rank[ascending] = torch.arange(len(ascending))
    best = torch.zeros_like(units.sizes).scatter_reduce(0, units.family_of, rank, "amax")
    removable = units.prunable.clone()
    removable[ascending[best]] = False

    candidates = ascending[removable[ascending]]
    family = units.family_of[candidates]
    gone = _place_in_group(family) + 1
    # the tiny addition undoes rounding: 0.29 * 100 is 28.999999999999996
    allowed = gone <= (units.sizes[family] * max_ratio + 1e-9)
    candidates, fraction = candidates[allowed], (gone / units.sizes[family])[allowed]
    return candidates if scope == "global" else candidates[fraction.argsort(stable=True)]


def _place_in_group(group: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """For every element how many elements of the same group come before it."""
    order = group.argsort(stable=True)
    counts = group.bincount()
    start = (counts.cumsum(0) - counts)[group[order]]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - start
    return place


def _check_arguments(units: Units, scores: Tensor, target: float, max_ratio: float) -> None:
    if not 0 < max_ratio <= 1:
        raise InputError("max_ratio is not a fraction.", expected="above 0, at most 1", got=max_ratio)
    if scores.shape != (units.num_units,):
        raise InputError(
            "The scores do not fit the graph.", expected=f"({units.num_units},), one per unit", got=tuple(scores.shape)
        )
    if not bool(scores.isfinite().all()):
        family = units.families[int(units.family_of[~scores.isfinite()][0])]
        raise NumericsError(
            "A score is not finite, so the units cannot be ranked.",
            where=f"family {family.name}",
            next_step="look for NaN or infinity in the model's weights or gradients",
        )
    if not target > 1:
        raise TargetError("Nothing would be removed.", expected="a speed-up above 1", got=target)
    if not bool(units.prunable.any()):
        reasons = sorted({family.locked for family in units.families if family.locked})
        raise TargetError(
            "Nothing can be removed: every unit is locked.",
            expected="a model with at least one family of units that is not locked",
            got="; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} further reasons" if len(reasons) > 5 else ""),
        )


def _out_of_reach(units: Units, nearest: float, target: float, max_ratio: float) -> TargetError:
    locked = sum(family.locked is not None for family in units.families)
    # rounded down, so that asking for the number in the message works
    feasible = math.floor(nearest * 100) / 100
    error = TargetError(
        f"A speed-up of {target:g}× cannot be met.",
        expected=f"at most {feasible:g}×, the nearest feasible one",
        got=f"{target:g}×; at most {max_ratio:.0%} of each family may go, {locked} of {len(units.families)} are locked",
        next_step=f"ask for {feasible:g}× or less" + (", or raise max_ratio" if max_ratio < 1 else ""),
    )
    error.feasible = feasible
    return error


def _family_plan(family: Family, kept: Bool[Tensor, " units"]) -> FamilyPlan:
    stays = kept[family.units]
    indices = tuple(stays.nonzero().flatten().tolist())
    return FamilyPlan(family.name, len(stays), len(indices), indices, family.locked)
