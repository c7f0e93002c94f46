"""Models → smaller models, each removal checked on the spot."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.config import WITH_DATA, DataSettings, Normaliser, PruneSettings, PruningRule
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.metrics.accuracy import evaluate
from metaprune_cli.pruning.check import Check, How, Weights, check
from metaprune_cli.pruning.evidence import Batch
from metaprune_cli.pruning.plan import FamilyPlan, Plan, make_plan
from metaprune_cli.pruning.ranking import Limits
from metaprune_cli.pruning.repair import RepairedLayer, repaired
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.scoring import left_of_scores, score_units
from metaprune_cli.pruning.surgery import apply_plan, without
from metaprune_cli.pruning.targets import Measure, Target, measure_for, read_target, remembered
from metaprune_cli.stages.calibration import Calibration
from metaprune_cli.stages.images import check_fits
from metaprune_cli.stages.loading import ModelSource, Opened, open_model, save
from metaprune_cli.stages.made import Made
from metaprune_cli.stages.paths import find_sources, plan_targets
from metaprune_cli.stages.structures import Structures
from metaprune_cli.training.progress import Progress

LimitsOf = Callable[[Opened, NeuronGraph, PruneSettings], Limits]
"""What may go of each family of a model."""


@dataclass(frozen=True)
class PrunedFile:
    """One model pruned to one target, or the plan of it; MACs are those of one input.

    ``requested`` and ``achieved`` say how many times less of ``quantity`` there was to be, and is, ``measured`` how
    much (see ``Plan``). ``output`` is None in a dry run; ``error`` is the relative difference between the small model
    and the masked original, before any repair, None in a dry run and where the two cannot be compared
    (``not_comparable`` says why). ``reference`` ("masked" or "survivors") and ``weights`` ("own" or "random") say what
    it was measured with, as in ``Check``.
    """

    input: str
    output: str | None
    quantity: str
    requested: float
    achieved: float
    speedup: float
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    measured: tuple[float, float] | None
    error: float | None
    not_comparable: str | None
    reference: How | None
    weights: Weights | None
    families: tuple[FamilyPlan, ...]
    repaired: tuple[RepairedLayer, ...]


def prune(
    models: Sequence[Path],
    output: Path | None,
    settings: PruneSettings,
    *,
    source: ModelSource,
    data: DataSettings | None,
    device: torch.device,
    progress: Progress,
    dry_run: bool = False,
    limits: LimitsOf | None = None,
    noted: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[PrunedFile, ...]:
    """Prune every model to every target of the settings.

    Args:
        models: files, or folders of model artifacts.
        output: a file, or a folder where there are several results.
        settings: the targets, how units are ranked, and how what is left is repaired.
        source: how foreign model files are opened.
        data: the images of the training split that criteria and repairs use, and the input's shape.
        device: where these passes run, and latency is measured.
        progress: is told about each model.
        dry_run: make the plans only; write nothing.
        limits: what may go of each family, instead of what the settings say.
        noted: further figures of the step, for the lineage.

    Raises:
        TargetError: a target cannot be met, or nothing would be removed.
        InputError: there are no images, and something needs them.
    """
    goals = goals_of(settings)
    sources = find_sources(models, ("model",))
    tags = [f"pruned-{goal.tag}" for goal in goals]
    targets: Sequence[Sequence[Path | None]]
    targets = [[None] * len(tags)] * len(sources.files) if dry_run else plan_targets(sources, output, tags, "model")
    calibration = None if data is None else Calibration(data, settings, device)
    structures = Structures(source)
    progress.begin("prune", len(sources.files))
    done: list[PrunedFile] = []
    for file, row in zip(sources.files, targets, strict=True):
        opened = _for_images(open_model(file.path, source), calibration)
        graph = structures.graph_of(opened)
        own = (limits or limits_for)(opened, graph, settings)
        done.extend(_prune(opened, graph, zip(goals, row, strict=True), settings, own, calibration, noted))
        progress.step()
    progress.end()
    return tuple(done)


def _for_images(opened: Opened, calibration: Calibration | None) -> Opened:
    """The model with the shape of the images, unless its own is stated; of any that are not needed, if it takes them.

    Raises:
        InputError: it does not take the images that are needed.
    """
    if calibration is None:
        return opened
    if calibration.needed or not opened.says_its_inputs:
        opened = opened.of_shape(calibration.splits.input_shape[1:])
        if calibration.needed:
            check_fits(opened, calibration.splits)
        return opened
    if opened.shape_is_stated:
        return opened
    try:
        shaped = opened.of_shape(calibration.splits.input_shape[1:])
        check_fits(shaped, calibration.splits)
    except InputError:
        return opened  # params.yaml is about other images
    return shaped


def goals_of(settings: PruneSettings) -> tuple[Target, ...]:
    """What the settings ask for: other targets take the place of the speed-ups.

    Raises:
        InputError: nothing is asked for, or a target cannot be read.
    """
    goals = tuple(map(read_target, settings.target)) or tuple(Target("macs", factor=s) for s in settings.speedup)
    if not goals:
        raise InputError("No speed-up is given.", where="prune.speedup", next_step="--speedup X")
    return goals


def _prune(
    opened: Opened,
    graph: NeuronGraph,
    goals: Iterator[tuple[Target, Path | None]],
    settings: PruneSettings,
    limits: Limits,
    calibration: Calibration | None,
    noted: Mapping[str, Any],
) -> Iterator[PrunedFile]:
    """One model to every target: all plans are made before anything is written."""
    settings = replace(settings, criterion=criterion_for(settings, opened))
    scores = scores_of(opened, graph, settings, calibration)
    example = opened.example()
    device = torch.device("cpu") if calibration is None else calibration.device
    planned = []
    for goal, target in goals:
        measure = (
            _dropped(opened, graph, settings, calibration)
            if goal.quantity == "drop"
            else measure_for(goal, opened.model, graph, example, device)
        )
        planned.append((make_plan(graph, scores, goal, scope=settings.scope, limits=limits, measure=measure), target))
    for plan, target in planned:
        if target is None:
            yield _described(opened, plan)
            continue
        small = apply_plan(opened.model, graph, plan, example)
        checked = check(opened.model, small, graph, plan, example)
        small, layers = _repaired(small, opened, graph, plan.kept, settings, calibration)
        further: dict[str, Any] = {"pruning": plan.to_document() | {"check": asdict(checked), "repair": _plain(layers)}}
        if opened.importance is not None:
            left = left_of_scores(opened.importance.tensor(), graph, plan.kept, encode(small, example))
            if left is not None:
                further |= replace(opened.importance, by_unit=tuple(left.tolist())).to_document()
        _save(small, target, opened, plan, settings, calibration, noted, further)
        yield _described(opened, plan, target, checked, layers)


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

    def drop(kept: Tensor) -> float:
        small = without(opened.model, graph, kept, opened.example())
        return whole - accuracy(_repaired(small, opened, graph, kept, settings, calibration)[0])

    return remembered(drop)


def _repaired(
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
    """What ``auto`` is: for ``metanet`` what the score head has learnt with."""
    if settings.normaliser != "auto":
        return settings.normaliser
    return "max" if opened.importance is None or criterion != "metanet" else opened.importance.normaliser


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


def _save(
    small: nn.Module,
    target: Path,
    opened: Opened,
    plan: Plan,
    settings: PruneSettings,
    calibration: Calibration | None,
    noted: Mapping[str, Any],
    further: Mapping[str, Any],
) -> None:
    # the other targets have no part in this file
    own = replace(settings, speedup=(plan.requested,) if plan.quantity == "macs" else (), target=())
    goal = {} if plan.quantity == "macs" else {"quantity": plan.quantity}
    data = calibration.data if calibration is not None and calibration.needed else None
    made = Made.by("prune", seed=settings.seed, inputs={"model": opened.path}, prune=own, data=data, **goal)
    step = {
        "requested": plan.requested,
        "achieved": plan.achieved,
        "criterion": settings.criterion,
        "scope": settings.scope,
        **goal,
        **({} if settings.repair == "none" else {"repair": settings.repair}),
        **noted,
    }
    metrics = {"speedup": plan.speedup, "macs": plan.macs_after, "params": plan.params_after}
    opened = replace(opened, zeros=opened.zeros.of_survivors() if opened.zeros else None)
    save(small, target, opened, made, step=step, metrics=metrics, **further)


def _plain(layers: Sequence[RepairedLayer]) -> list[dict[str, Any]]:
    return [asdict(layer) for layer in layers]


def _described(
    opened: Opened,
    plan: Plan,
    target: Path | None = None,
    checked: Check | None = None,
    layers: tuple[RepairedLayer, ...] = (),
) -> PrunedFile:
    return PrunedFile(
        input=str(opened.path),
        output=None if target is None else str(target),
        quantity=plan.quantity,
        requested=plan.requested,
        achieved=plan.achieved,
        speedup=plan.speedup,
        macs_before=plan.macs_before,
        macs_after=plan.macs_after,
        params_before=plan.params_before,
        params_after=plan.params_after,
        measured=plan.measured,
        error=None if checked is None else checked.error,
        not_comparable=None if checked is None else checked.reason,
        reference=None if checked is None else checked.how,
        weights=None if checked is None else checked.weights,
        families=plan.families,
        repaired=layers,
    )
