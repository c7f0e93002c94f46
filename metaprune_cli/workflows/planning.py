"""What is to go of a model: its units' scores, the limits, and a plan for every target."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

import torch
from torch import Tensor, nn

from metaprune_cli.config import WITH_DATA, Normaliser, PruneSettings, PruningRule
from metaprune_cli.data import Batch
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.pruning.criteria import USUAL
from metaprune_cli.pruning.measures import measure_for, remembered
from metaprune_cli.pruning.plan import Plan, make_plan
from metaprune_cli.pruning.ranking import Limits
from metaprune_cli.pruning.repair import Original, RepairedLayer, repaired
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.scoring import score_units
from metaprune_cli.pruning.search import searched
from metaprune_cli.pruning.surgery import without
from metaprune_cli.pruning.targets import Measure, Target, read_target
from metaprune_cli.tasks import measure
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.loading import Opened

UNSEARCHED = ("memory", "latency", "drop")
"""Quantities that take a series of smaller models for a single plan."""


def goals_of(settings: PruneSettings) -> tuple[Target, ...]:
    """What the settings ask for: other targets take the place of the speed-ups.

    Raises:
        InputError: nothing is asked for, or a target cannot be read.
    """
    goals = tuple(map(read_target, settings.target)) or tuple(Target("macs", factor=s) for s in settings.speedup)
    if not goals:
        raise InputError("No speed-up is given.", where="prune.speedup", next_step="--speedup X")
    wrong = [goal.quantity for goal in goals if goal.quantity in UNSEARCHED]
    if settings.search and wrong:
        raise InputError(
            f"The layers' shares cannot be searched for with a target of {wrong[0]}.",
            expected="a target that is told without running every candidate for it: a speed-up, params, size",
            got=f"{settings.search} trials",
            where="prune.search",
            next_step="leave one of the two out",
        )
    return goals


@dataclass(frozen=True, eq=False)
class Remains:
    """What is left of one model with certain units alone; the whole one runs over the images for repairs once.

    Attributes:
        opened: the model.
        graph: its graph.
        settings: how it is pruned and repaired; they name their criterion.
        calibration: the images; None: there are none.
        limits: what may go of each family.
    """

    opened: Opened
    graph: NeuronGraph
    settings: PruneSettings
    calibration: Calibration | None
    limits: Limits

    @property
    def device(self) -> torch.device:
        """Where what is left is repaired and measured."""
        return torch.device("cpu") if self.calibration is None else self.calibration.device

    def images(self, wanted_for: str) -> Calibration:
        """The images.

        Raises:
            InputError: there are none.
        """
        if self.calibration is None:
            raise InputError(f"{wanted_for} needs images.", next_step="give --dataset and --data-root")
        return self.calibration

    def of(self, kept: Tensor) -> nn.Module:
        """What is left with certain units alone, repaired."""
        return self.repaired(without(self.opened.model, self.graph, kept, self.opened.example()), kept)[0]

    def repaired(self, small: nn.Module, kept: Tensor) -> tuple[nn.Module, tuple[RepairedLayer, ...]]:
        """What is left, on the device where the images are, and back.

        Raises:
            InputError: the model is sparse, and the repair would fill its zeros.
        """
        if self.opened.zeros is not None and self.settings.repair == "least-squares":
            raise InputError(
                "Least squares would fill the zeros of a sparse model.",
                where=self.opened.path,
                next_step="prune it with --repair bias, or repair first and zero weights then",
            )
        how, inputs = self.settings.repair, None if self.calibration is None else self.calibration.inputs
        small = small.to(self.device)
        original = self._original if inputs is not None and how in ("bias", "least-squares") else None
        small, layers = repaired(
            small, self._model, self.graph, kept, inputs, how, seed=self.settings.seed, original=original
        )
        return small.cpu(), layers

    @cached_property
    def _model(self) -> nn.Module:
        model = self.opened.model
        return model if self.device.type == "cpu" else copy.deepcopy(model).to(self.device)

    @cached_property
    def _original(self) -> Original:
        assert self.calibration is not None
        assert self.calibration.inputs is not None
        return Original.of(self._model, self.calibration.inputs, self.settings.seed)


def plans(group: Sequence[Remains], goals: Sequence[Target], progress: Progress) -> list[list[Plan]]:
    """For each model one for every target; where shares are searched for, they are the same for the whole group."""
    rankings = [_rankings(remains, goals) for remains in group]
    columns = [_planned([row[place] for row in rankings], progress) for place in range(len(goals))]
    return [[column[place] for column in columns] for place in range(len(group))]


@dataclass(frozen=True, eq=False)
class _Ranking:
    """A model, and what one target makes of its scores once every family is lifted so far."""

    remains: Remains
    scores: Tensor
    by: Callable[[Tensor], Plan]

    def plan(self, lifts: Tensor | None) -> Plan:
        return self.by(self.scores if lifts is None else self.scores * lifts.exp()[self.remains.graph.units.family_of])

    @cached_property
    def loss(self) -> Callable[[Tensor], float]:
        """Of what is left by such lifts, on the images that judge."""
        remains, images = self.remains, self.remains.images("A search")

        def loss_of(kept: Tensor) -> float:
            return measure(remains.of(kept).to(images.device), images.judged, images.device, images.task).loss

        loss = remembered(loss_of)
        return lambda lifts: loss(self.plan(lifts).kept)


def _rankings(remains: Remains, goals: Sequence[Target]) -> list[_Ranking]:
    opened, graph, settings = remains.opened, remains.graph, remains.settings
    scores = scores_by_speedup(opened, graph, settings, remains.calibration)
    found = []
    for goal in goals:
        measure = (
            _dropped(remains)
            if goal.quantity == "drop"
            else measure_for(goal, opened.model, graph, opened.example(), remains.device)
        )
        by = partial(make_plan, graph, target=goal, scope=settings.scope, limits=remains.limits, measure=measure)
        found.append(_Ranking(remains, scores(goal.factor or USUAL), by))
    return found


def _planned(rankings: Sequence[_Ranking], progress: Progress) -> list[Plan]:
    """For each model of a group the plan for one target."""
    remains, lifts = rankings[0].remains, None
    if remains.settings.search:
        progress.begin("search", remains.settings.search)
        lifts = searched(
            len(remains.graph.units.families),
            lambda lifts: statistics.fmean(ranking.loss(lifts) for ranking in rankings),
            remains.settings.search,
            seed=remains.settings.seed,
            on_trial=lambda lowest: progress.step(loss=lowest),
        )
        progress.end()
    return [ranking.plan(lifts) for ranking in rankings]


def _dropped(remains: Remains) -> Measure:
    """How much worse the headline on the validation images is when only certain units are left, repaired."""
    images = remains.images("A target of drop")
    device, metric = images.device, images.task.metrics[0]

    def headline(model: nn.Module) -> float:
        batches = images.splits.val.batches(images.data.batch_size, device=device)
        return measure(copy.deepcopy(model).to(device), batches, device, images.task).headline

    whole = headline(remains.opened.model)
    return remembered(lambda kept: metric.loss(whole, headline(remains.of(kept))))


def criterion_for(settings: PruneSettings, opened: Opened) -> str:
    """What ``auto`` is for this model."""
    if settings.criterion != "auto":
        return settings.criterion
    return (opened.importance and opened.importance.criterion) or "group-l2"


def normaliser_for(settings: PruneSettings, opened: Opened, criterion: str) -> Normaliser:
    """What ``auto`` is: for a method's criterion that of its scores, else ranks where a search starts."""
    if settings.normaliser != "auto":
        return settings.normaliser
    if opened.importance is not None and criterion == opened.importance.criterion:
        return opened.importance.normaliser
    return "rank" if settings.search else "max"


def scores_of(
    opened: Opened,
    graph: NeuronGraph,
    settings: PruneSettings,
    calibration: Calibration | None,
    speedup: float = USUAL,
) -> Tensor:
    """The scores of a model's units, shape (units,); ``speedup`` is for score heads that ask for it."""
    criterion = criterion_for(settings, opened)
    model, batches = opened.model, tuple[Batch, ...]()
    if calibration is not None and (criterion in WITH_DATA or ":" in criterion):
        model, batches = copy.deepcopy(opened.model).to(calibration.device), calibration.batches
    return score_units(
        model,
        graph,
        criterion,
        task=None if calibration is None else calibration.task,
        batches=batches,
        importance=None if opened.importance is None else opened.importance.tensor(speedup),
        reduction=settings.reduction,
        normaliser=normaliser_for(settings, opened, criterion),
        seed=settings.seed,
    )


def scores_by_speedup(
    opened: Opened, graph: NeuronGraph, settings: PruneSettings, calibration: Calibration | None
) -> Callable[[float], Tensor]:
    """The scores at any speed-up: made once, but where a score head follows the speed-up."""
    follows = opened.importance is not None and opened.importance.slope is not None

    @cache
    def at(speedup: float) -> Tensor:
        return scores_of(opened, graph, settings, calibration, speedup)

    return lambda speedup: at(speedup if follows else USUAL)


def limits_for(opened: Opened, graph: NeuronGraph, settings: PruneSettings) -> Limits:
    """What the settings say may go of each family."""
    heads = any(family.kind == "heads" for family in graph.units.families)
    rules = settings.rules + ((PruningRule("kind:heads", ignore=True),) if settings.keep_heads and heads else ())
    return limits_of(graph, rules, settings.max_ratio, round_to=settings.round_to, model=opened.model)
