"""What is to go of a model: its units' scores, the limits, and a plan for every target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from metaprune_cli.config import WITH_DATA, Normaliser, PruneSettings, PruningRule
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.metrics.accuracy import evaluate
from metaprune_cli.pruning.evidence import Batch
from metaprune_cli.pruning.plan import Plan, make_plan
from metaprune_cli.pruning.ranking import Limits
from metaprune_cli.pruning.repair import RepairedLayer, repaired
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.scoring import score_units
from metaprune_cli.pruning.search import searched
from metaprune_cli.pruning.surgery import without
from metaprune_cli.pruning.targets import Measure, Target, measure_for, read_target, remembered
from metaprune_cli.stages.calibration import Calibration
from metaprune_cli.stages.loading import Opened
from metaprune_cli.training.progress import Progress

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


def plans(
    opened: Opened,
    graph: NeuronGraph,
    goals: Sequence[Target],
    settings: PruneSettings,
    limits: Limits,
    calibration: Calibration | None,
    progress: Progress,
) -> list[Plan]:
    """One for every target; the settings name their criterion."""
    scores = scores_of(opened, graph, settings, calibration)
    device = torch.device("cpu") if calibration is None else calibration.device
    plans = []
    for goal in goals:
        measure = (
            _dropped(opened, graph, settings, calibration)
            if goal.quantity == "drop"
            else measure_for(goal, opened.model, graph, opened.example(), device)
        )
        by = partial(make_plan, graph, target=goal, scope=settings.scope, limits=limits, measure=measure)
        plans.append(by(_searched(scores, by, opened, graph, settings, calibration, progress)))
    return plans


def _searched(
    scores: Tensor,
    plan: Callable[[Tensor], Plan],
    opened: Opened,
    graph: NeuronGraph,
    settings: PruneSettings,
    calibration: Calibration | None,
    progress: Progress,
) -> Tensor:
    """The scores as they are, or what a search makes of them."""
    if not settings.search:
        return scores
    if calibration is None:
        raise InputError("A search needs images.", next_step="give --dataset and --data-root")
    loss = remembered(lambda kept: _judged(_left(opened, graph, kept, settings, calibration), calibration))
    progress.begin("search", settings.search)
    found = searched(
        graph.units,
        scores,
        lambda candidate: loss(plan(candidate).kept),
        settings.search,
        seed=settings.seed,
        on_trial=lambda lowest: progress.step(loss=lowest),
    )
    progress.end()
    return found


def _judged(model: nn.Module, calibration: Calibration) -> float:
    return evaluate(model.to(calibration.device), calibration.judged, calibration.device).loss


def _dropped(opened: Opened, graph: NeuronGraph, settings: PruneSettings, calibration: Calibration | None) -> Measure:
    """By how many points the accuracy on the validation images falls when only certain units are left, repaired.

    Raises:
        InputError: there are no images.
    """
    if calibration is None:
        raise InputError("A drop of the accuracy needs images.", next_step="give --dataset and --data-root")
    images, size, device = calibration.splits.val, calibration.data.batch_size, calibration.device

    def accuracy(model: nn.Module) -> float:
        return evaluate(copy.deepcopy(model).to(device), images.batches(size, device=device), device).top1

    whole = accuracy(opened.model)

    return remembered(lambda kept: whole - accuracy(_left(opened, graph, kept, settings, calibration)))


def _left(
    opened: Opened, graph: NeuronGraph, kept: Tensor, settings: PruneSettings, calibration: Calibration | None
) -> nn.Module:
    """What is left with certain units alone, repaired."""
    small = without(opened.model, graph, kept, opened.example())
    return repaired_on(small, opened, graph, kept, settings, calibration)[0]


def repaired_on(
    small: nn.Module,
    opened: Opened,
    graph: NeuronGraph,
    kept: Tensor,
    settings: PruneSettings,
    calibration: Calibration | None,
) -> tuple[nn.Module, tuple[RepairedLayer, ...]]:
    """On the device where the images are, and back."""
    if opened.zeros is not None and settings.repair == "least-squares":
        raise InputError(
            "Least squares would fill the zeros of a sparse model.",
            where=opened.path,
            next_step="prune it with --repair bias, or repair first and zero weights then",
        )
    inputs = None if calibration is None else calibration.inputs
    model = opened.model
    if calibration is not None and calibration.device.type != "cpu":
        model, small = copy.deepcopy(model).to(calibration.device), small.to(calibration.device)
    small, layers = repaired(small, model, graph, kept, inputs, settings.repair, seed=settings.seed)
    return small.cpu(), layers


def criterion_for(settings: PruneSettings, opened: Opened) -> str:
    """What ``auto`` is for this model."""
    if settings.criterion != "auto":
        return settings.criterion
    return "group-l2" if opened.importance is None else "metanet"


def normaliser_for(settings: PruneSettings, opened: Opened, criterion: str) -> Normaliser:
    """What ``auto`` is: for ``metanet`` what the score head has learnt with, else ranks where a search starts."""
    if settings.normaliser != "auto":
        return settings.normaliser
    if opened.importance is not None and criterion == "metanet":
        return opened.importance.normaliser
    return "rank" if settings.search else "max"


def scores_of(opened: Opened, graph: NeuronGraph, settings: PruneSettings, calibration: Calibration | None) -> Tensor:
    """The scores of a model's units, shape (units,)."""
    criterion = criterion_for(settings, opened)
    model, batches = opened.model, tuple[Batch, ...]()
    if calibration is not None and (criterion in WITH_DATA or ":" in criterion):
        model, batches = copy.deepcopy(opened.model).to(calibration.device), calibration.batches
    return score_units(
        model,
        graph,
        criterion,
        batches=batches,
        importance=None if opened.importance is None else opened.importance.tensor(),
        reduction=settings.reduction,
        normaliser=normaliser_for(settings, opened, criterion),
        seed=settings.seed,
    )


def limits_for(opened: Opened, graph: NeuronGraph, settings: PruneSettings) -> Limits:
    """What the settings say may go of each family."""
    heads = any(family.kind == "heads" for family in graph.units.families)
    rules = settings.rules + ((PruningRule("kind:heads", ignore=True),) if settings.keep_heads and heads else ())
    return limits_of(graph, rules, settings.max_ratio, round_to=settings.round_to, model=opened.model)
