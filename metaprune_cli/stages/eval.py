"""Measuring models on the test images and comparing them: the only reader of the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import metaprune_cli
from metaprune_cli.artifacts import is_artifact
from metaprune_cli.config import DataSettings, EvalSettings, PruneSettings
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.errors import InputError
from metaprune_cli.methods.registry import methods
from metaprune_cli.metrics.density import density
from metaprune_cli.metrics.latency import Latency
from metaprune_cli.metrics.macs import count_macs, count_params
from metaprune_cli.reports.conditions import Conditions
from metaprune_cli.reports.curve import arms_from, curves
from metaprune_cli.reports.files import check_folder, write_report
from metaprune_cli.reports.gallery import Wall, gallery, invited
from metaprune_cli.reports.page import PAGE, Contents, html
from metaprune_cli.reports.rows import Row
from metaprune_cli.reports.summary import Summary, all_repaired, common_repair, metrics, summarise
from metaprune_cli.reports.views import Views
from metaprune_cli.reports.widths import widths_of
from metaprune_cli.tasks import Score
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.ancestors import whole_of
from metaprune_cli.workflows.arms import REPAIRED, Arm, nouns, place
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.lineage import base_candidates, base_of, descent
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.paths import find_sources, short_names
from metaprune_cli.workflows.spending import learnt, spent
from metaprune_cli.workflows.task import task_of, with_task


@dataclass(frozen=True)
class Evaluation:
    """The rows (models, then curves), the same grouped, the conditions in words, and the files that were written."""

    rows: tuple[Row, ...]
    summary: Summary
    setting: Mapping[str, str]
    written: tuple[Path, ...]

    def to_document(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "setting": dict(self.setting),
            "models": [row.record() for row in self.rows],
            "summary": metrics(self.summary),
            **({"not_compared": [one.record() for one in self.summary.unequal]} if self.summary.unequal else {}),
            "written": [str(path) for path in self.written],
        }


@dataclass(frozen=True)
class Measured:
    """What is measured of one model, whatever it is compared with."""

    score: Score
    latency: Latency
    macs: int
    params: int
    density: float
    further_macs: Mapping[str, int]


def evaluate(
    models: Sequence[Path],
    output: Path | None,
    settings: EvalSettings,
    *,
    base: Path | None,
    pruning: PruneSettings | None,
    source: ModelSource,
    data: DataSettings,
    device: torch.device,
    progress: Progress,
    report: Path | None = None,
    command: str = "metaprune eval",
) -> Evaluation:
    """Measure models on the test images.

    Args:
        models: files, or folders of model artifacts.
        output: folder for the report; None writes nothing.
        settings: batch sizes, runs, and the speed-ups of the curves.
        base: what speed-ups are measured against: a file, or a folder with each model's own base in it; None: the
            model that each was made from, if it is given too or lies beside it, else the first.
        pruning: how models are pruned for the curves; None draws none.
        source: how foreign model files are opened.
        data: the images.
        device: where everything is measured.
        progress: is told about each model.
        report: an HTML file for people; None writes none.
        command: the command line, for that file.

    Raises:
        InputError: a path, a model or the data cannot be used, no model is left to draw a curve of, or there are no
            models of an arm to compare with.
    """
    check_folder(output)
    if report is not None:
        PAGE.check(report, "--report")
    own = [] if base is not None else _wholes(models)
    paths = [*models, *own] if base is None else [*models, base]
    sources = [file.path for file in find_sources(paths, ("model",)).files]
    data = with_task(data, sources, allow_import=source.allow_import, alike=False)

    def conditions(data: DataSettings) -> Conditions:
        task = task_of(data)
        return Conditions(task, task.test(data), task.beside_test(data), data, settings, device, progress)

    views = Views.of(data, sources, source.preprocessing, conditions)
    given = _open(models, source, views)
    bases = _open(own if base is None else [base], source, views)
    files = {opened.path.resolve(): opened for opened in [*bases, *given]}  # a file may be given and be a base
    given, bases = ([files[opened.path.resolve()] for opened in some] for some in (given, bases))
    every = list(files.values())
    candidates = [*bases, *base_candidates(given, [])] if base is None else base_candidates(given, bases)
    compared = {opened.path: base_of(opened, candidates) for opened in every}
    start = [] if pruning is None else _unpruned(given)
    _check_against(settings.against, every, start, pruning, views)
    rows, repair = common_repair(_rows(every, compared, _measure(every, views, progress), views))
    setting = views.in_words() | repair
    if pruning is not None:
        by_path = dict(zip((opened.path for opened in every), rows, strict=True))
        for opened in start:
            against = by_path[compared[opened.path].path]
            rows += curves([opened], [against], pruning, source, views.by_path[opened.path])
        ranked = _ranked(pruning.criterion)
        setting["Recalibrated"] = f"pruned by {ranked}, BatchNorm statistics from training images"
    summary = summarise(rows, settings.against)
    written = () if output is None else write_report(output, rows, summary, setting)
    if report is not None:
        contents = _contents(every, rows, summary, setting, command)
        walls = _walls(every, rows, views)
        PAGE.write(report, html(replace(contents, gallery=walls)))
        written += (report,)
    return Evaluation(tuple(rows), summary, setting, written)


def _wholes(models: Sequence[Path]) -> list[Path]:
    """What the models were pruned from, as far as it lies beside them and is not given itself; files of ours alone."""
    given = [file.path for file in find_sources(models, ("model",)).files]
    there = {path.resolve() for path in given}
    found = [whole for path in given if (whole := whole_of(path)) is not None and is_artifact(whole)]
    return sorted({path for path in found if path.resolve() not in there})


def _ranked(criterion: str) -> str:
    scoring = nouns([method for method in methods() if method.criterion])
    return f"the {scoring}'s scores, or group-l2 where there are none" if criterion == "auto" else criterion


def _check_against(
    against: Sequence[Arm],
    models: Sequence[Opened],
    start: Sequence[Opened],
    pruning: PruneSettings | None,
    views: Views,
) -> None:
    """Before anything is measured: an arm that is compared with has to be there, as the report will call it."""
    found = [descent(opened.lineage, opened.path) for opened in models]
    pruned = {one.arm for one in found if one.requested is not None}
    if all_repaired((one.requested, one.arm) for one in found):
        pruned = {arm.removesuffix(f" {REPAIRED}") for arm in pruned}
    if pruning is not None:
        pruned |= {
            arm for opened in start for arm in arms_from(opened, pruning, views.by_path[opened.path].task).values()
        }
    known = sorted(pruned, key=place)
    unknown = [arm for arm in against if arm not in known]
    if unknown:
        raise InputError(
            f"No model is of the arm{'s' if len(unknown) > 1 else ''} to compare with.",
            expected=", ".join(known) or "a pruned model: there is none",
            got="\n".join(f"{arm}{did_you_mean(arm, known)}" for arm in unknown),
            where="--against",
            next_step="name one of those, or give models of that arm too",
        )


def _contents(
    every: Sequence[Opened], rows: Sequence[Row], summary: Summary, setting: Mapping[str, str], command: str
) -> Contents:
    names = short_names([opened.path for opened in every])
    lineages = {names[opened.path]: opened.lineage for opened in every}
    own = zip(every, rows, strict=False)  # the curves' rows come after them
    widths = [found for opened, row in own if (found := widths_of(opened, row.arm)) is not None]
    versions = {"metaprune": metaprune_cli.__version__, "torch": torch.__version__}
    return Contents(rows, summary, setting, lineages, widths, command, versions)


def _walls(every: Sequence[Opened], rows: Sequence[Row], views: Views) -> list[Wall]:
    """Pictures of what the models make of some samples, where the task has any."""
    paths = [opened.path for opened in every]
    models = {opened.path: opened.model for opened in every}
    return gallery(invited(rows[: len(every)], paths, models, views.by_path))


def _open(paths: Sequence[Path], source: ModelSource, views: Views) -> list[Opened]:
    """All models of the paths, each of which fits the images as it takes them."""
    found = []
    for file in find_sources(paths, ("model",)).files:
        conditions = views.by_path[file.path]
        opened = open_model(file.path, source).of_shape(conditions.shape)
        check_fits(opened, conditions.splits, conditions.task)
        found.append(opened)
    return found


def _measure(every: Sequence[Opened], views: Views, progress: Progress) -> list[Measured]:
    latencies = views.latencies({opened.path: opened.model for opened in every})
    progress.begin("eval", len(every))
    found = []
    for opened in every:
        macs = count_macs(opened.model, opened.example())
        score = views.by_path[opened.path].score(opened.model, opened.path.name)
        params, filled = count_params(opened.model), density(opened.model)
        further = views.by_path[opened.path].further_macs(opened.model)
        found.append(Measured(score, latencies[str(opened.path)], macs, params, filled, further))
        opened.model.cpu()
        progress.step(**{score.metric.key: score.headline})
    progress.end()
    return found


def _rows(
    every: Sequence[Opened], compared: Mapping[Path, Opened], measured: Sequence[Measured], views: Views
) -> list[Row]:
    by_path = {opened.path: one for opened, one in zip(every, measured, strict=True)}
    names = short_names([opened.path for opened in every])
    return [
        _row(
            opened,
            names,
            by_path[opened.path],
            compared[opened.path],
            by_path[compared[opened.path].path],
            len(views.by_path[opened.path].splits.train),
        )
        for opened in every
    ]


def _row(opened: Opened, names: Mapping[Path, str], own: Measured, base: Opened, other: Measured, images: int) -> Row:
    found = descent(opened.lineage, opened.path)
    return Row(
        name=names[opened.path],
        origin=found.origin,
        arm=found.arm,
        step=found.step,
        requested=found.requested,
        base=names[base.path],
        speedup=other.macs / own.macs,
        score=own.score,
        macs=own.macs,
        params=own.params,
        file_bytes=opened.path.stat().st_size,
        latency_ms=own.latency.median_ms,
        latency_p10_ms=own.latency.p10_ms,
        latency_p90_ms=own.latency.p90_ms,
        latency_speedup=other.latency.median_ms / own.latency.median_ms,
        epochs=found.epochs,
        density=own.density,
        settings=found.settings,
        further_macs=own.further_macs,
        training_macs=spent(opened.lineage, other.macs, own.macs, images) if images else None,
        learnt_macs=learnt(opened.lineage),
    )


def _unpruned(models: Sequence[Opened]) -> list[Opened]:
    found = [opened for opened in models if descent(opened.lineage, opened.path).step == "unpruned"]
    if not found:
        raise InputError(
            "There is no model to draw a curve of: all of them are pruned already.",
            expected="at least one model that is not",
            where="--curve",
            next_step="give the models before pruning, or leave --curve out",
        )
    return found
