"""A plan for every target: by the units' scores alone, or with widths that were searched for."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from metaprune_cli.config import PruneSettings, SearchSettings
from metaprune_cli.errors import InputError
from metaprune_cli.pruning.measures import measure_for, remembered
from metaprune_cli.pruning.plan import Plan, check_reach, make_plan
from metaprune_cli.pruning.targets import Measure, Target, read_target
from metaprune_cli.tasks import measure
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.workflows.allowed import Allowed
from metaprune_cli.workflows.planned import Planned
from metaprune_cli.workflows.pruning import Pruned, PruningRun
from metaprune_cli.workflows.ranking import ranked
from metaprune_cli.workflows.searching import check_searchable, search


def goals_of(settings: PruneSettings) -> tuple[Target, ...]:
    """What the settings ask for: other targets take the place of the speed-ups.

    Raises:
        InputError: nothing is asked for, a target cannot be read, or a search cannot be made for it.
    """
    goals = tuple(map(read_target, settings.target)) or tuple(Target("macs", factor=s) for s in settings.speedup)
    if not goals:
        raise InputError("No speed-up is given.", where="prune.speedup", next_step="--speedup X")
    if settings.search:
        check_searchable(goals)
    return goals


def plans(group: Sequence[PruningRun], goals: Sequence[Target], progress: Progress) -> list[list[Planned]]:
    """For each model one for every target; where widths are searched for, they are the same for the whole group.

    Each has passed a trial on meta; what broke the model is locked.

    Raises:
        TargetError: a target cannot be met, or nothing would be removed.
        InputError: something needs images and there are none, or cannot be searched for.
    """
    for run, goal in itertools.product(group, goals):
        check_reach(run.graph, goal, run.scope, run.limits)
    by = _searched if group[0].settings.search else _ranked
    columns = [by(group, goal, progress) for goal in goals]
    return [[column[place] for column in columns] for place in range(len(group))]


def prune_to(run: PruningRun, goal: Target, progress: Progress | None = None) -> Pruned:
    """One model to one target; raises what planning and removing raise."""
    ((planned,),) = plans([run], [goal], progress or Silence())
    return planned.carried_out()


def _ranked(group: Sequence[PruningRun], goal: Target, progress: Progress) -> Sequence[Planned]:
    """By each model's scores alone."""
    return [ranked(run, goal, _measure(run, goal), run.scope, progress=progress) for run in group]


def planned_by(run: PruningRun, scores: Tensor, goal: Target, *, fill: bool = True) -> Planned:
    """A plan by scores that somebody has; raises what planning raises.

    Args:
        run: the model.
        scores: of its units.
        goal: in a quantity that can be counted.
        fill: whether units are put back where the last one overshoots.
    """

    def make(allowed: Allowed) -> Plan:
        scope = run.scope
        return make_plan(allowed.graph, scores, goal, scope=scope, limits=allowed.limits, fill=fill)

    return Planned.of(run, make, lambda kept: float(scores[kept].sum()))


def _searched(group: Sequence[PruningRun], goal: Target, progress: Progress) -> Sequence[Planned]:
    """As `metaprune search` does it, with as many candidates as the settings say."""
    settings = group[0].settings
    (found,) = search(group, [goal], as_search(settings), seed=settings.seed, progress=progress, trials=settings.search)
    return found.planned


def as_search(settings: PruneSettings) -> SearchSettings:
    """The search that ``prune --search N`` stands for."""
    usual = SearchSettings()
    population = min(usual.population, settings.search)
    return replace(
        usual,
        population=population,
        iterations=math.ceil(settings.search / population),
        images=settings.search_images,
        verify=2 * settings.search_images,
        leaders=min(usual.leaders, max(settings.search // 4, 1)),  # each takes a whole repair
        repair=settings.repair,
        repair_images=settings.repair_images,
    )


def _measure(run: PruningRun, goal: Target) -> Measure:
    if goal.quantity == "drop":
        return _dropped(run)
    return measure_for(goal, run.model, run.graph, run.example, run.device)


def _dropped(run: PruningRun) -> Measure:
    """How much worse the headline on the validation images is when only certain units are left, repaired."""
    images = run.images.demanded_by("A target of drop")
    device, metric = images.device, images.task.metrics[0]

    def headline(model: nn.Module) -> float:
        batches = images.splits.val.batches(images.batch_size, device=device)
        return measure(copy.deepcopy(model).to(device), batches, device, images.task).headline

    whole = headline(run.model)
    return remembered(lambda kept: metric.loss(whole, headline(run.left(kept))))
