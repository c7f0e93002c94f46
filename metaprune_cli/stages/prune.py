"""Models → smaller models, each removal checked on the spot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from metaprune_cli.config import DataSettings, PruneSettings, Scope
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.pruning.check import How, Weights
from metaprune_cli.pruning.plan import FamilyPlan, Held, Plan
from metaprune_cli.pruning.ranking import Limits
from metaprune_cli.pruning.repair import RepairedLayer
from metaprune_cli.pruning.surgery import Taken
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model, save
from metaprune_cli.workflows.made import Made, code_of
from metaprune_cli.workflows.paths import find_sources, plan_targets
from metaprune_cli.workflows.planned import Planned
from metaprune_cli.workflows.planning import goals_of, plans
from metaprune_cli.workflows.pruning import Pruned, PruningRun
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.structures import Structures
from metaprune_cli.workflows.task import with_task

LimitsOf = Callable[[Opened, NeuronGraph, PruneSettings], Limits]
"""What may go of each family of a model."""


@dataclass(frozen=True)
class PrunedFile:
    """One model pruned to one target, or the plan of it; MACs are those of one input.

    ``requested`` and ``achieved`` say how many times less of ``quantity`` there was to be, and is, ``measured`` how
    much (see ``Plan``). ``output`` is None in a dry run; ``error`` is the relative difference between the small model
    and the masked original, before any repair, None in a dry run and where the two cannot be compared
    (``not_comparable`` says why). ``reference`` ("masked" or "survivors") and ``weights`` ("own" or "random") say what
    it was measured with, as in ``Check``. ``held`` is what had to be locked, ``route`` what the small model is: its own
    class, or a program. ``as_task`` is the task that says by what units are ranked, where nothing else did.
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
    held: tuple[Held, ...]
    route: Taken
    repaired: tuple[RepairedLayer, ...]
    criterion: str
    scope: Scope
    as_task: str | None


def ranked_for_task(criterion: str, scope: str, task: str) -> str:
    """What is said where the task has chosen how units are ranked."""
    return (
        f"Units are ranked by {criterion} on images with scope {scope}, which works best for {task}; change this with "
        "--criterion and --scope."
    )


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
    harms: dict[int, Mapping[int, float]] | None = None,
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
        harms: what each family of the only model can lose (``PruningRun.harms``), for a caller who prunes it again.

    Raises:
        TargetError: a target cannot be met, or nothing would be removed.
        InputError: there are no images, and something needs them.
    """
    goals = goals_of(settings)
    sources = find_sources(models, ("model",))
    tags = [f"pruned-{goal.tag}" for goal in goals]
    targets: Sequence[Sequence[Path | None]]
    targets = [[None] * len(tags)] * len(sources.files) if dry_run else plan_targets(sources, output, tags, "model")
    if data is not None:
        data = with_task(
            data,
            [file.path for file in sources.files],
            allow_import=source.allow_import,
            preprocessing=source.preprocessing,
        )
    calibration = Calibration.none(settings) if data is None else Calibration(Samples.of(data), settings, device)
    structures = Structures(source)
    progress.begin("prune", len(sources.files))
    done: list[PrunedFile] = []

    def read(path: Path) -> _Job:
        opened = for_images(open_model(path, source), calibration)
        graph = structures.graph_of(opened)
        own = None if limits is None else limits(opened, graph, settings)
        run = PruningRun.of(opened, graph, settings, calibration, own)
        return _Job(opened, run if harms is None else replace(run, harms=harms))

    rows = dict(zip((file.path for file in sources.files), targets, strict=True))
    for group in _groups(map(read, rows), together=settings.together):
        beside = {f"together/{job.opened.path}": job.opened.path for job in group if len(group) > 1}
        for job, planned in zip(group, plans([job.run for job in group], goals, progress), strict=True):
            found = zip(planned, rows[job.opened.path], strict=True)
            done.extend(_prune(job, found, noted, beside))
            progress.step()
    progress.end()
    return tuple(done)


@dataclass(frozen=True, eq=False)
class _Job:
    """A model, what is known of its file, and its run."""

    opened: Opened
    run: PruningRun


def _groups(models: Iterable[_Job], *, together: bool) -> Iterable[list[_Job]]:
    """Each model by itself, one after the other; or those of the same structure together."""
    if not together:
        return ([model] for model in models)
    alike = defaultdict(list)
    for model in models:
        alike[model.run.graph.units.signature].append(model)
    return alike.values()


def for_images(opened: Opened, calibration: Calibration) -> Opened:
    """The model with the shape of the images, unless its own is stated; of any that are not needed, if it takes them.

    Raises:
        InputError: it does not take the images that are needed.
    """
    if not calibration.there:
        return opened
    if calibration.needed or not opened.says_its_inputs:
        opened = opened.of_shape(calibration.splits.item_shape)
        if calibration.needed:
            check_fits(opened, calibration.splits, calibration.task)
        return opened
    if opened.shape_is_stated:
        return opened
    try:
        shaped = opened.of_shape(calibration.splits.item_shape)
        check_fits(shaped, calibration.splits, calibration.task)
    except InputError:
        return opened  # params.yaml is about other images
    return shaped


def _prune(
    job: _Job,
    planned: Iterator[tuple[Planned, Path | None]],
    noted: Mapping[str, Any],
    beside: Mapping[str, Path],
) -> Iterator[PrunedFile]:
    """One model by every plan; all were made before anything is written."""
    for one, target in planned:
        if target is None:
            yield _described(job, one.plan, one.route)
            continue
        pruned = one.carried_out()
        _save(pruned, target, job, noted, beside)
        yield _described(job, pruned.plan, pruned.route, target, pruned)


def _save(pruned: Pruned, target: Path, job: _Job, noted: Mapping[str, Any], beside: Mapping[str, Path]) -> None:
    opened, plan, images = job.opened, pruned.plan, job.run.images
    settings = replace(job.run.settings, criterion=job.run.criterion, scope=job.run.scope)
    # the other targets have no part in this file
    own = replace(settings, speedup=(plan.requested,) if plan.quantity == "macs" else (), target=())
    goal = {} if plan.quantity == "macs" else {"quantity": plan.quantity}
    looked_at = images if images.there and images.needed else None
    made = Made.by(
        "prune",
        seed=settings.seed,
        inputs={"model": opened.path, **beside},
        digests=({} if looked_at is None else {"data": looked_at.splits.digest})
        | code_of(opened.architecture.name, settings.criterion),
        prune=own,
        data=None if looked_at is None else looked_at.samples.settings,
        **goal,
    )
    step = {
        "requested": plan.requested,
        "achieved": plan.achieved,
        "criterion": settings.criterion,
        "scope": settings.scope,
        **({} if images.preferred is None else {"usual": images.preferred}),
        **goal,
        **({} if settings.repair == "none" else {"repair": settings.repair}),
        **({"search": settings.search} if settings.search else {}),
        **({"rescore": settings.rescore} if settings.rescore > 1 else {}),
        **({"together": len(beside)} if beside else {}),
        **noted,
    }
    metrics = {"speedup": plan.speedup, "macs": plan.macs_after, "params": plan.params_after}
    opened = replace(opened, zeros=opened.zeros.of_survivors() if opened.zeros else None)
    save(pruned.model, target, opened, made, step=step, metrics=metrics, **further_of(pruned, opened, job.run))


def further_of(pruned: Pruned, opened: Opened, run: PruningRun) -> dict[str, Any]:
    """What the file of a smaller model says beside its tensors: plan, proof, repair, scores of the units that stay."""
    proof = {"check": asdict(pruned.checked), "repair": [asdict(layer) for layer in pruned.layers]}
    further = {"pruning": pruned.plan.to_document() | proof}
    if opened.importance is None:
        return further
    left = opened.importance.left(run.graph, pruned.plan.kept, encode(pruned.model, run.example))
    return further if left is None else further | left.to_document()


def _described(
    job: _Job, plan: Plan, route: Taken, target: Path | None = None, pruned: Pruned | None = None
) -> PrunedFile:
    opened, run = job.opened, job.run
    by_task = run.settings.criterion == "auto" and opened.importance is None and run.images.preferred is not None
    checked = None if pruned is None else pruned.checked
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
        held=plan.held,
        route=route,
        repaired=() if pruned is None else pruned.layers,
        criterion=run.criterion,
        scope=run.scope,
        as_task=run.images.task.name if by_task else None,
    )
