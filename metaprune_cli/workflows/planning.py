"""A plan for every target: by the units' scores alone, or with shares of the families that were searched for."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from torch import Tensor, nn

from metaprune_cli.config import PruneSettings
from metaprune_cli.errors import InputError
from metaprune_cli.pruning.criteria import USUAL
from metaprune_cli.pruning.measures import measure_for, remembered
from metaprune_cli.pruning.plan import Plan, make_plan
from metaprune_cli.pruning.search import searched
from metaprune_cli.pruning.surgery import UnfitError
from metaprune_cli.pruning.targets import Measure, Target, read_target
from metaprune_cli.tasks import measure
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.workflows.allowed import Allowed
from metaprune_cli.workflows.planned import Planned
from metaprune_cli.workflows.pruning import Pruned, PruningRun

UNSEARCHED = ("memory", "latency", "drop")
"""Quantities that take a series of smaller models for a single plan."""


def goals_of(settings: PruneSettings) -> tuple[Target, ...]:
    """What the settings ask for: other targets take the place of the speed-ups.

    Raises:
        InputError: nothing is asked for, a target cannot be read, or a search cannot be made for it.
    """
    goals = tuple(map(read_target, settings.target)) or tuple(Target("macs", factor=s) for s in settings.speedup)
    if not goals:
        raise InputError("No speed-up is given.", where="prune.speedup", next_step="--speedup X")
    _check_searchable(goals, settings)
    return goals


def plans(group: Sequence[PruningRun], goals: Sequence[Target], progress: Progress) -> list[list[Planned]]:
    """For each model one for every target; where shares are searched for, they are the same for the whole group.

    Each has passed a trial on meta; what broke the model is locked.

    Raises:
        TargetError: a target cannot be met, or nothing would be removed.
        InputError: something needs images and there are none, or cannot be searched for.
    """
    rankings = [_rankings(run, goals) for run in group]
    columns = [_planned([row[place] for row in rankings], progress) for place in range(len(goals))]
    return [[column[place] for column in columns] for place in range(len(group))]


def prune_to(run: PruningRun, goal: Target, progress: Progress | None = None) -> Pruned:
    """One model to one target; raises what planning and removing raise."""
    ((planned,),) = plans([run], [goal], progress or Silence())
    return planned.carried_out()


def planned_by(run: PruningRun, scores: Tensor, goal: Target, *, fill: bool = True) -> Planned:
    """A plan by scores that somebody has; raises what planning raises.

    Args:
        run: the model.
        scores: of its units.
        goal: in a quantity that can be counted.
        fill: whether units are put back where the last one overshoots.
    """

    def make(allowed: Allowed) -> Plan:
        scope = run.settings.scope
        return make_plan(allowed.graph, scores, goal, scope=scope, limits=allowed.limits, fill=fill)

    return Planned.of(run, make, lambda kept: float(scores[kept].sum()))


@dataclass(frozen=True, eq=False)
class _Ranking:
    """A model, and what one target makes of its scores once every family is lifted so far."""

    run: PruningRun
    scores: Tensor
    by: Callable[..., Plan]

    def planned(self, lifts: Tensor | None) -> Planned:
        scores = self._lifted(lifts)

        def make(allowed: Allowed) -> Plan:
            return self.by(allowed.graph, scores, limits=allowed.limits)

        return Planned.of(self.run, make, lambda kept: float(scores[kept].sum()))

    def _lifted(self, lifts: Tensor | None) -> Tensor:
        return self.scores if lifts is None else self.scores * lifts.exp()[self.run.graph.units.family_of]

    @cached_property
    def loss(self) -> Callable[[Tensor], float]:
        """Of what is left by such lifts, on the images that judge."""
        run, images = self.run, self.run.images.demanded_by("A search")

        def loss_of(kept: Tensor) -> float:
            try:
                small = run.left(kept)
            except UnfitError:
                return math.nan
            return measure(small.to(images.device), images.judged, images.device, images.task).loss

        loss = remembered(loss_of)
        return lambda lifts: loss(self.by(run.graph, self._lifted(lifts), limits=run.limits).kept)


def _rankings(run: PruningRun, goals: Sequence[Target]) -> list[_Ranking]:
    _check_searchable(goals, run.settings)
    found = []
    for goal in goals:
        scores = run.scores(goal.factor or USUAL)
        measure = (
            _dropped(run)
            if goal.quantity == "drop"
            else measure_for(goal, run.model, run.graph, run.example, run.device)
        )
        by = partial(make_plan, target=goal, scope=run.settings.scope, measure=measure)
        found.append(_Ranking(run, scores, by))
    return found


def _planned(rankings: Sequence[_Ranking], progress: Progress) -> list[Planned]:
    """For each model of a group the plan for one target."""
    run, lifts = rankings[0].run, None
    if run.settings.search:
        progress.begin("search", run.settings.search)
        lifts = searched(
            len(run.graph.units.families),
            lambda lifts: statistics.fmean(ranking.loss(lifts) for ranking in rankings),
            run.settings.search,
            seed=run.settings.seed,
            on_trial=lambda lowest: progress.step(loss=lowest),
        )
        progress.end()
    return [ranking.planned(lifts) for ranking in rankings]


def _dropped(run: PruningRun) -> Measure:
    """How much worse the headline on the validation images is when only certain units are left, repaired."""
    images = run.images.demanded_by("A target of drop")
    device, metric = images.device, images.task.metrics[0]

    def headline(model: nn.Module) -> float:
        batches = images.splits.val.batches(images.batch_size, device=device)
        return measure(copy.deepcopy(model).to(device), batches, device, images.task).headline

    whole = headline(run.model)
    return remembered(lambda kept: metric.loss(whole, headline(run.left(kept))))


def _check_searchable(goals: Sequence[Target], settings: PruneSettings) -> None:
    """Refuse what a search cannot be made for.

    Raises:
        InputError: a target that takes a series of smaller models for each of its candidates.
    """
    wrong = [goal.quantity for goal in goals if goal.quantity in UNSEARCHED]
    if settings.search and wrong:
        raise InputError(
            f"The layers' shares cannot be searched for with a target of {wrong[0]}.",
            expected="a target that is told without running every candidate for it: a speed-up, params, size",
            got=f"{settings.search} trials",
            where="prune.search",
            next_step="leave one of the two out",
        )
