"""Models → smaller models whose widths were searched for, with a table and a picture of all that was tried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import DataSettings, OptimSettings, PruneSettings, SearchSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.methods.base import WidthWeights
from metaprune_cli.pruning.surgery import Taken, without
from metaprune_cli.pruning.targets import Target
from metaprune_cli.reports import search as report
from metaprune_cli.reports.png import check_drawing, write_drawing
from metaprune_cli.stages.prune import for_images, further_of
from metaprune_cli.tasks import Metric
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.anew import with_new_weights
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.judging import Judge
from metaprune_cli.workflows.loading import ModelSource, Opened, save
from metaprune_cli.workflows.made import Made, code_of
from metaprune_cli.workflows.memory import memory_of
from metaprune_cli.workflows.paths import Source, find_sources, plan_targets, stem
from metaprune_cli.workflows.planning import goals_of
from metaprune_cli.workflows.pruning import Pruned, PruningRun
from metaprune_cli.workflows.rank_check import RankCheck, rank_check
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.searching import BASELINES, Leader, Searched
from metaprune_cli.workflows.searching import search as search_widths
from metaprune_cli.workflows.spending import TRIED
from metaprune_cli.workflows.structures import Structures
from metaprune_cli.workflows.task import with_task
from metaprune_cli.workflows.width_networks import given_by, open_widths, width_kinds, with_statistics

NAMED = 2
"""Models of one search that its picture names."""


@dataclass(frozen=True)
class SearchedFile:
    """One model, and what was found for it.

    ``how`` says where the chosen widths come from; ``plain``, ``uniform``, ``rescored`` (only where scores need no
    images) and ``sensitivity`` where nothing that was found is better by more than chance. ``fitness`` and ``headline``
    are of the images that had no say, after the whole repair, as are those of ``baselines``; ``gain`` is how much lower
    the fitness of the best that was found is than the best baseline's, ``error`` its standard error. ``taus`` are what
    a rank check found: Kendall's τ by fitness, and its 95 % interval.
    """

    input: str
    output: str
    table: str
    quantity: str
    requested: float
    achieved: float
    speedup: float
    macs_after: int
    params_after: int
    evaluated: int
    how: str
    metric: Metric
    fitness: float
    headline: float
    baselines: Mapping[str, tuple[float, float]]
    gain: float
    error: float
    route: Taken
    taus: Mapping[str, tuple[float, float, float]] | None

    def to_document(self) -> dict[str, Any]:
        """Plain values, the headline by its metric's name."""
        plain = {name: value for name, value in asdict(self).items() if name not in ("metric", "headline", "baselines")}
        key = self.metric.key
        others = {how: {"fitness": one, key: other} for how, (one, other) in self.baselines.items()}
        return plain | {key: self.headline, "baselines": others}


@dataclass(frozen=True, eq=False)
class _Job:
    """A model, its run, and what is written of it."""

    opened: Opened
    run: PruningRun
    source: Source
    targets: Sequence[Path]
    weights: WidthWeights | None
    of: _Job | None = None  # where the widths were searched for, if not in the model itself


@dataclass(frozen=True, eq=False)
class Call:
    """What is the same for all models of one call."""

    settings: SearchSettings
    pruning: PruneSettings
    goals: tuple[Target, ...]
    images: Calibration
    training: OptimSettings
    seed: int


def search(
    models: Sequence[Path],
    output: Path | None,
    settings: SearchSettings,
    *,
    pruning: PruneSettings,
    training: OptimSettings,
    source: ModelSource,
    data: DataSettings,
    seed: int,
    device: torch.device,
    progress: Progress,
    resume: bool = False,
    jobs: int = 1,
    ranks: Ranks = ALONE,
    heirs: Sequence[Path] = (),
    drawing: Path | None = None,
) -> tuple[SearchedFile, ...]:
    """Search the widths of every model for every target.

    Args:
        models: files, or folders of model artifacts; or networks that give weights for widths.
        output: a file, or a folder where there are several results; table and picture lie beside them.
        settings: how the search goes.
        pruning: the targets, what may go, and how units of one layer are ranked; its own scope, repair and search have
            no part in it.
        training: of the candidates of a rank check.
        source: how foreign model files are opened.
        data: the images; those of the training split.
        seed: of everything random.
        device: where candidates are judged.
        progress: is told about each candidate.
        resume: candidates that an earlier, interrupted run has judged are not judged again.
        jobs: how many processes judge candidates.
        ranks: the processes of this run; they share the candidates out among themselves.
        heirs: models of the structure that one such network is of: one search finds the widths of all of them, and each
            keeps units of its own. None: what is written is the network's own model.
        drawing: where to draw all searches, a PNG file, beside the picture of each.

    Raises:
        TargetError: a target cannot be met, or no family may lose anything.
        InputError: there are not enough images, a target cannot be searched for, or something cannot be written.
    """
    pruning = replace(
        pruning, scope="global", repair=settings.repair, repair_images=settings.repair_images, search=0, together=False
    )
    goals = goals_of(pruning)
    _check(goals, settings)
    check_drawing(drawing)
    sources = find_sources(models, ("model", *width_kinds()))
    inheriting = find_sources(heirs, ("model",)) if heirs else sources
    targets = plan_targets(inheriting, output, [f"searched-{goal.tag}" for goal in goals], "model")
    for row, file in zip(targets, sources.files, strict=not heirs):
        report.check_places(*beside(row[0], file))
    paths = [file.path for file in dict.fromkeys((*sources.files, *inheriting.files))]
    data = with_task(data, paths, allow_import=source.allow_import, preprocessing=source.preprocessing)
    images = Calibration(Samples.of(data), pruning, device)
    call, structures = Call(settings, pruning, goals, images, training, seed), Structures(source)

    def job(file: Source, row: Sequence[Path], of: _Job | None = None) -> _Job:
        found, weights = open_widths(file.path, source)
        opened = for_images(found, images)
        graph = structures.graph_of(opened)
        if weights is not None:
            opened, graph = with_statistics(opened, graph, weights, images)
        run = PruningRun.of(opened, graph, pruning, images)
        return _Job(opened, run, file, row, weights, of)

    todo = [job(file, row) for file, row in zip(sources.files, targets, strict=not heirs)]
    given: list[_Job] = []
    if heirs:
        given = [job(file, row, todo[0]) for file, row in zip(inheriting.files, targets, strict=True)]
        _check_heirs(todo, given, settings)
    done: list[SearchedFile] = []
    searches: dict[str, Sequence[Searched]] = {}
    for group in _groups(todo, together=settings.together and all(job.weights is None for job in todo)):
        rows, found = _search(group, call, progress, resume, jobs, ranks, given)
        searches[", ".join(str(job.opened.path) for job in group[:NAMED])] = found
        done.extend(rows)
    if ranks.first:
        write_drawing(drawing, partial(report.draw, searches))
    return tuple(done)


def beside(target: Path, source: Source) -> tuple[Path, Path]:
    """The table and the picture of a search, by a model's first target."""
    name = stem(source.path)
    return target.with_name(f"{name}.search.csv"), target.with_name(f"{name}.search.png")


def _check(goals: Sequence[Target], settings: SearchSettings) -> None:
    if settings.front and len({goal.quantity for goal in goals}) > 1:
        raise InputError(
            "One search cannot combine targets of different quantities.",
            expected="targets of one quantity, such as several speed-ups",
            got=", ".join(goal.tag for goal in goals),
            where="--front",
            next_step="leave --front out: each target then has a search of its own",
        )


def _check_heirs(todo: Sequence[_Job], heirs: Sequence[_Job], settings: SearchSettings) -> None:
    """Make sure that models can take over the widths that one network was searched for."""
    network, *others = todo
    if others or network.weights is None:
        raise InputError(
            "--models needs exactly one network that was searched.",
            expected="one network that gives weights for widths",
            got=f"{len(todo)} files" if others else "a model",
            where="--models",
            next_step="give such a network alone, or leave --models out: every model has a search of its own",
        )
    if settings.weights == "inherited" or settings.rank_check:
        raise InputError(
            "With --models the weights are the models' own, and nothing is checked of each.",
            expected="--weights model or scratch, and no --rank-check",
            got="--weights inherited" if settings.weights == "inherited" else "--rank-check",
            next_step="leave --models out",
        )
    signature = network.run.graph.units.signature
    strange = [str(heir.opened.path) for heir in heirs if heir.run.graph.units.signature != signature]
    if strange:
        raise InputError(
            "Some models have a different structure than the network.",
            expected=f"models such as {network.opened.path} is of",
            got="\n".join(strange),
            where="--models",
            next_step="leave them out, or train a network for their structure",
        )


def _groups(todo: Sequence[_Job], *, together: bool) -> list[list[_Job]]:
    """Each model by itself, or those of the same structure together."""
    if not together:
        return [[job] for job in todo]
    alike = defaultdict(list)
    for job in todo:
        alike[job.run.graph.units.signature].append(job)
    return list(alike.values())


def _search(
    group: Sequence[_Job],
    call: Call,
    progress: Progress,
    resume: bool,
    jobs: int,
    ranks: Ranks,
    heirs: Sequence[_Job] = (),
) -> tuple[list[SearchedFile], Sequence[Searched]]:
    """The models of one search, or its heirs, for all targets; everything is found before anything is written."""
    first = group[0]
    checkpoint = _made(group, first, call).checkpoint(first.targets[0])
    found = search_widths(
        [job.run for job in group],
        call.goals,
        call.settings,
        seed=call.seed,
        progress=progress,
        weights=first.weights,
        jobs=jobs,
        ranks=ranks,
        memory=memory_of(checkpoint, resume=resume, ranks=ranks),
    )
    table, drawing = beside(first.targets[0], first.source)
    rows: list[SearchedFile] = []
    for place, job in enumerate(heirs or group):
        for one, target in zip(found, job.targets, strict=True):
            pruned = (one.planned_for(job.run) if heirs else one.planned[place]).carried_out()
            if ranks.first:
                _save(pruned, one, target, _made(group, job, call, one.goal), job, call, max(len(heirs), 1))
            checked = ranks.from_first(partial(_rank_check, job, one.goal, call, progress))
            if checked is not None and ranks.first:
                report.write_rank_check(
                    checked, target.with_name(f"{stem(job.source.path)}.rank-check-{one.goal.tag}.csv")
                )
            rows.append(_described(pruned, one, job, target, table, call, checked))
    if ranks.first:
        report.write(found, table, drawing)
        checkpoint.discard()
    return rows, found


def _rank_check(job: _Job, goal: Target, call: Call, progress: Progress) -> RankCheck | None:
    if not call.settings.rank_check:
        return None
    data = call.images.samples.settings
    augment = data is not None and data.augment != "none"
    return rank_check(
        job.run,
        goal,
        call.settings,
        call.training,
        seed=call.seed,
        progress=progress,
        augment=augment,
        weights=job.weights,
    )


def _made(group: Sequence[_Job], job: _Job, call: Call, goal: Target | None = None) -> Made:
    """How a file is made; without a target, how all of a search are."""
    others = {f"together/{one.opened.path}": one.opened.path for one in group if len(group) > 1}
    others |= {"widths": job.of.opened.path} if job.of else {}
    # other targets have no part in a file, unless they share its search
    asked = [goal.tag] if goal and not call.settings.front else [one.tag for one in call.goals]
    return Made.by(
        "search",
        seed=call.seed,
        inputs={"model": job.opened.path, **others},
        digests={"data": call.images.splits.digest} | code_of(job.opened.architecture.name, job.run.criterion),
        search=replace(call.settings, rank_check=0, rank_epochs=SearchSettings.rank_epochs),  # no part in the file
        prune=replace(call.pruning, criterion=job.run.criterion, speedup=(), target=()),
        targets=asked,
        data=call.images.samples.settings,
    )


def _save(pruned: Pruned, one: Searched, target: Path, made: Made, job: _Job, call: Call, shared_by: int) -> None:
    plan, settings = pruned.plan, call.settings
    model = pruned.model
    if settings.weights == "scratch":
        model = _anew(pruned, job, call.seed)
    elif settings.weights == "inherited" and job.weights is not None:
        asked, probes = one.place.asked.asked, one.place.probes
        judge = Judge.of(job.run, settings, weights=job.weights, route=asked, probes=probes)
        model = judge.generated(plan.kept, job.weights).cpu()
    step = {
        "requested": plan.requested,
        "achieved": plan.achieved,
        "criterion": job.run.criterion,
        **({} if call.images.preferred is None else {"usual": call.images.preferred}),
        **({} if plan.quantity == "macs" else {"quantity": plan.quantity}),
        **({} if settings.repair == "none" or settings.weights == "scratch" else {"repair": settings.repair}),
        "weights": settings.weights,
        **({} if job.of is None else given_by(job.of.opened.path)),
        "evaluated": len(one.history.candidates),
        TRIED: one.asked_macs // shared_by,
        "fitness": one.chosen.verified.fitness,
        "seed": call.seed,
    }
    metrics = {"speedup": plan.speedup, "macs": plan.macs_after, "params": plan.params_after}
    opened = replace(job.opened, zeros=job.opened.zeros.of_survivors() if job.opened.zeros else None)
    save(model, target, opened, made, step=step, metrics=metrics, **further_of(pruned, opened, job.run))


def _anew(pruned: Pruned, job: _Job, seed: int) -> nn.Module:
    """A model of the widths that were found, with weights as before any training.

    Raises:
        InputError: nothing says how they are initialised.
    """
    if isinstance(pruned.model, Program):
        raise InputError(
            "The model becomes a program, which has those weights alone that it came with.",
            where=job.opened.path,
            next_step="--route class, or --weights model",
        )
    fresh = with_new_weights(job.opened, seed).model
    return without(fresh, job.run.graph, pruned.plan.kept, job.run.example, route="class")


def _described(
    pruned: Pruned, one: Searched, job: _Job, target: Path, table: Path, call: Call, checked: RankCheck | None
) -> SearchedFile:
    plan, chosen = pruned.plan, one.chosen.verified
    tried: dict[str, Leader] = {leader.how: leader for leader in reversed(one.leaders)}
    baselines = {how: tried[how] for how in BASELINES if how in tried}
    return SearchedFile(
        input=str(job.opened.path),
        output=str(target),
        table=str(table),
        quantity=plan.quantity,
        requested=plan.requested,
        achieved=plan.achieved,
        speedup=plan.speedup,
        macs_after=plan.macs_after,
        params_after=plan.params_after,
        evaluated=len(one.history.candidates),
        how=one.chosen.how,
        metric=call.images.task.metrics[0],
        fitness=chosen.fitness,
        headline=chosen.headline,
        baselines={how: (one.verified.fitness, one.verified.headline) for how, one in baselines.items()},
        gain=one.gain[0],
        error=one.gain[1],
        route=pruned.route,
        taus=None if checked is None else checked.taus,
    )
