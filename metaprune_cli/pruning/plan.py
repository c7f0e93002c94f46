"""What goes and what stays: a plan is pure data, made before anything is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metaprune_cli.config import Quantity, Scope
from metaprune_cli.errors import InputError, NumericsError, TargetError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import params_of
from metaprune_cli.graph.units import Family, Kind, Units, titled
from metaprune_cli.pruning.cost import Cost, speedup
from metaprune_cli.pruning.listing import listing
from metaprune_cli.pruning.ranking import Limits, Order, plain_limits, removal_order
from metaprune_cli.pruning.targets import Measure, Target, counted

COUNTED = ("macs", "params", "size")
OVERSHOOT = 0.01  # of the limit, from which on units are put back
FILL_TRIES = 64
WORDS = {"params": "parameters", "size": "bytes in the file", "memory": "activation memory", "latency": "time"}


@dataclass(frozen=True)
class FamilyPlan:
    """What happens to one family.

    Attributes:
        name: the family's name.
        before: number of its units.
        after: number of them that stay.
        kept: which of them stay, 0 to before - 1, ascending.
        locked: why none of them could go; None where some could.
        kind: whether they are channels or heads.
    """

    name: str
    before: int
    after: int
    kept: tuple[int, ...] = field(repr=False)
    locked: str | None
    kind: Kind = "channels"

    @property
    def title(self) -> str:
        """Its name, apart from that of another family of the same layer."""
        return titled(self.name, self.kind)


@dataclass(frozen=True)
class Held:
    """A family that was to shrink and may not, because what is left would not run or not be the same."""

    family: str
    reason: str


@dataclass(frozen=True, eq=False)
class Plan:
    """Which units of a graph stay, and what that gains.

    Attributes:
        kept: bool, shape (units,).
        macs_before: multiply-accumulates of one sample, with all units; ``macs_after`` without those that go.
        params_before: trainable parameters, likewise.
        requested: how many times less of the quantity was asked for: the speed-up, if it is MACs.
        families: the same decision, family by family.
        quantity: what was to become less.
        measured: how much there was of it, and how much there is; None for MACs, which are counted above. Of ``drop``,
            0 and by how much the headline metric is worse; what is then said to be requested and achieved is the
            speed-up.
        held: what had to be locked to get here, in the order in which it was found.
    """

    kept: Bool[Tensor, " units"]
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    requested: float
    families: tuple[FamilyPlan, ...]
    quantity: Quantity = "macs"
    measured: tuple[float, float] | None = None
    held: tuple[Held, ...] = ()

    @property
    def speedup(self) -> float:
        """MACs before, divided by MACs after."""
        return speedup(self.macs_before, self.macs_after)

    @property
    def achieved(self) -> float:
        """How many times less of the quantity there is."""
        return self.speedup if self.measured is None or self.quantity == "drop" else speedup(*self.measured)

    def table(self) -> str:
        """The families, before and after, and what that gains, as a few lines of text."""
        rows = [(family.name, family.before, family.after) for family in self.families]
        gains = {"MACs": (self.macs_before, self.macs_after), "parameters": (self.params_before, self.params_after)}
        return listing(rows, gains)

    def __repr__(self) -> str:
        return f"Plan: {self.speedup:.3g}× fewer MACs\n{self.table()}"

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {
            "requested": self.requested,
            "speedup": self.speedup,
            **(
                {}
                if self.measured is None
                else {self.quantity: dict(zip(("before", "after"), self.measured, strict=True))}
            ),
            "macs": {"before": self.macs_before, "after": self.macs_after},
            "params": {"before": self.params_before, "after": self.params_after},
            **({"held": [asdict(held) for held in self.held]} if self.held else {}),
            "families": [
                {"name": f.name, "before": f.before, "after": f.after, "kept": list(f.kept), "locked": f.locked}
                | ({} if f.kind == "channels" else {"kind": f.kind})
                for f in self.families
            ],
        }


def make_plan(
    graph: NeuronGraph,
    scores: Float[Tensor, " units"],
    target: float | Target,
    *,
    scope: Scope = "global",
    max_ratio: float = 0.8,
    limits: Limits | None = None,
    measure: Measure | None = None,
    fill: bool = True,
) -> Plan:
    """Decide which units go: the lowest scores first, as few as reach the target.

    Where the last of them overshoots by more than a percent (in narrow networks one unit can be much), units of the
    highest scores among those that were to go stay after all (``fill``), as long as the target is met.

    Args:
        graph: the structure; its tensors do not matter.
        scores: one number per unit, the lowest goes first, shape (units,).
        target: a speed-up in MACs, or any other target.
        scope: ``global`` ranks the units of all families together; ``family`` takes the same fraction of each.
        max_ratio: the largest fraction of a family that may go; without a meaning where ``limits`` are given.
        limits: what may go of each family.
        measure: the target's quantity, where it is none that can be counted.
        fill: whether units are put back where the last one overshoots.

    Raises:
        TargetError: the target is out of reach (the nearest feasible one is named), or nothing would be removed.
        InputError: ``max_ratio`` is not a fraction, or the scores do not fit the graph.
        NumericsError: a score is not finite.
    """
    target = target if isinstance(target, Target) else Target("macs", factor=target)
    limits = limits or plain_limits(graph.units, max_ratio)
    found = _select(graph, measure or _counted(graph, target), scores, target, scope, limits, fill=fill)
    return plan_of(graph, found.kept, target, found.before, found.after)


def plan_of(graph: NeuronGraph, kept: Bool[Tensor, " units"], target: Target, before: float, after: float) -> Plan:
    """The plan that keeps just these units.

    Args:
        graph: the structure.
        kept: which units stay.
        target: what the plan is for.
        before: how much of the target's quantity there is.
        after: how much there is with these units alone.
    """
    everything = torch.ones_like(kept)
    cost = Cost.of(graph)
    macs = cost.macs(everything), cost.macs(kept)
    asked = macs if target.quantity == "drop" else (before, target.limit_for(before))
    return Plan(
        kept=kept,
        macs_before=macs[0],
        macs_after=macs[1],
        params_before=params_of(graph, everything),
        params_after=params_of(graph, kept),
        requested=target.factor or speedup(*asked),
        families=tuple(_family_plan(family, kept) for family in graph.units.families),
        quantity=target.quantity,
        measured=None if target.quantity == "macs" else (before, after),
    )


def select(
    graph: NeuronGraph,
    scores: Float[Tensor, " units"],
    speedup: float,
    scope: Scope = "global",
    max_ratio: float = 0.8,
    *,
    limits: Limits | None = None,
    cost: Cost | None = None,
    fill: bool = False,
) -> Bool[Tensor, " units"]:
    """The units that ``make_plan`` would keep, and nothing else: milliseconds, for use inside a training step.

    ``cost`` is that of the graph, where somebody has it already.
    """
    limits, cost = limits or plain_limits(graph.units, max_ratio), cost or Cost.of(graph)
    return _select(graph, cost.macs, scores, Target("macs", factor=speedup), scope, limits, fill=fill).kept


def check_reach(graph: NeuronGraph, target: Target, scope: Scope, limits: Limits) -> None:
    """Make sure that a target is met if all that may go does, before anybody knows, or takes the time to measure, what
    the units are worth; nothing of targets that cannot be counted.

    Raises:
        TargetError: it is out of reach, or nothing would be removed.
    """
    measure = counted(graph, target.quantity)
    if measure is not None:
        the_locked_stay = (~graph.units.prunable).float()
        _select(graph, measure, the_locked_stay, target, scope, limits, fill=False)


@dataclass(frozen=True, eq=False)
class _Selection:
    """What stays, and how much there was and is."""

    kept: Bool[Tensor, " units"]
    before: float
    after: float


def _select(
    graph: NeuronGraph,
    measure: Measure,
    scores: Tensor,
    target: Target,
    scope: Scope,
    limits: Limits,
    *,
    fill: bool = True,
) -> _Selection:
    """Bisect on how many steps of the ranking are taken; the quantity never rises along it."""
    scores = scores.detach().cpu()
    _check_scores(graph, scores)
    order = removal_order(graph.units, scores, scope, limits)

    def without(steps: int) -> Tensor:
        kept = torch.ones(graph.units.num_units, dtype=torch.bool)
        kept[order.units[: int(order.ends[steps - 1]) if steps else 0]] = False
        return kept

    if target.quantity == "drop":
        return _as_far_as(order, measure, target.limit_for(0), without)
    before = measure(without(0))
    limit = target.limit_for(before)
    _check_target(target, before)
    low, high = max(order.forced, 1) - 1, len(order.ends)
    if not high or measure(without(high)) > limit:
        raise _out_of_reach(graph.units, target, before, measure(without(high)), limits)
    while high - low > 1:
        middle = (low + high) // 2
        if measure(without(middle)) <= limit:
            high = middle
        else:
            low = middle
    kept = without(high)
    singly = len(order.ends) == len(order.units) and not order.forced
    if fill and singly and target.quantity in COUNTED:
        _fill_(kept, order.units[:high], measure, limit)
    return _Selection(kept, before, measure(kept))


def _as_far_as(order: Order, measure: Measure, limit: float, without: Callable[[int], Tensor]) -> _Selection:
    """As many steps as cost no more than ``limit``; a bisection, as if every further step cost more."""
    low, high = order.forced, len(order.ends) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if measure(without(middle)) <= limit:
            low = middle
        else:
            high = middle
    cost = measure(without(max(low, 1)))
    if not low or cost > limit:
        raise TargetError(
            f"Nothing can be removed at a loss of {limit:g} points.",
            expected=f"a loss of {cost:g} points",
            got=f"{limit:g}",
            next_step="allow a larger loss, add --repair least-squares, or loosen the rules",
        )
    return _Selection(without(low), 0.0, cost)


def _fill_(kept: Bool[Tensor, " units"], gone: Tensor, measure: Measure, limit: float) -> None:
    """Keep what fits under the limit after all, from the highest score on; in place."""
    for unit in gone.flip(0)[:FILL_TRIES].tolist():
        if measure(kept) > (1 - OVERSHOOT) * limit:
            return
        kept[unit] = True
        if measure(kept) > limit:
            kept[unit] = False


def _counted(graph: NeuronGraph, target: Target) -> Measure:
    measure = counted(graph, target.quantity)
    if measure is None:
        raise InputError(
            f"The {target.quantity} of a smaller model must be measured.",
            expected="a measure (see pruning.measures.measure_for)",
            where="make_plan",
        )
    return measure


def _check_scores(graph: NeuronGraph, scores: Tensor) -> None:
    units = graph.units
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
    if not bool(units.prunable.any()):
        of_weights = {family.locked for family in units.families if family.locked and family.parameters}
        reasons = sorted(of_weights or set(graph.structure.verbatim.values()))
        raise TargetError(
            "Nothing can be removed: every unit is locked.",
            expected="a model with at least one family of units that is not locked",
            got="; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} further reasons" if len(reasons) > 5 else ""),
        )


def _check_target(target: Target, before: float) -> None:
    if not 0 < target.limit_for(before) < before:
        raise TargetError(
            "Nothing would be removed.",
            expected="a speed-up above 1" if target.quantity == "macs" else f"less than the {before:g} there are",
            got=target.factor if target.limit is None else f"{target.limit:g}",
        )


def _out_of_reach(units: Units, target: Target, before: float, least: float, limits: Limits) -> TargetError:
    locked = sum(family.locked is not None for family in units.families)
    # rounded down, so that asking for the number in the message works
    feasible = math.floor(speedup(before, least) * 100) / 100
    asked = speedup(before, target.limit_for(before))
    most = float((limits.most / units.sizes.clamp_min(1)).max()) if len(limits.most) else 0.0
    error = TargetError(
        f"A speed-up of {asked:g}× cannot be met."
        if target.quantity == "macs"
        else f"{asked:.3g} times less {WORDS[target.quantity]} cannot be met.",
        expected=f"at most {feasible:g}×, the nearest feasible one",
        got=f"{asked:g}×; at most {most:.0%} of each family may go, {locked} of {len(units.families)} are locked",
        next_step=f"ask for {feasible:g}× or less" + (", or raise max_ratio or loosen the rules" if most < 1 else ""),
    )
    error.feasible = feasible
    return error


def _family_plan(family: Family, kept: Bool[Tensor, " units"]) -> FamilyPlan:
    stays = kept[family.units]
    indices = tuple(stays.nonzero().flatten().tolist())
    return FamilyPlan(family.name, len(stays), len(indices), indices, family.locked, family.kind)
