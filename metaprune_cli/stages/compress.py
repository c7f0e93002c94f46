"""A model and its images in; a smaller model, an export and a verdict out: every step in one call."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.artifacts import is_artifact
from metaprune_cli.config import CompressSettings, DataSettings, ExportSettings, OptimSettings, PruneSettings
from metaprune_cli.config.compressing import NO_METANET
from metaprune_cli.data.splits import DATASETS
from metaprune_cli.errors import InputError
from metaprune_cli.methods.registry import learnt_by, methods
from metaprune_cli.stages import compress_steps as steps
from metaprune_cli.stages.compress_steps import Course
from metaprune_cli.stages.prune import ranked_for_task
from metaprune_cli.tasks import Metric
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.compressed import Compressed, Smaller
from metaprune_cli.workflows.estimate import Estimate, estimated
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.loading import ModelSource, open_model
from metaprune_cli.workflows.max_drop import too_costly, tried
from metaprune_cli.workflows.paths import find_sources, stem
from metaprune_cli.workflows.steps import Steps
from metaprune_cli.workflows.task import task_of, with_task
from metaprune_cli.workflows.verdict import Verdict

log = logging.getLogger(__name__)
REWRITES = "transform"
"""The command of methods that come before the removal; those that remove units themselves have commands of their own,
and a place here once they can be told how far to go as ``prune`` can."""
WITHOUT_IMAGES = (
    "Without images nothing is repaired, trained or measured, and removal alone costs a lot: "
    "at 4x, a small CIFAR-10 network drops from 62.6 % to 11.6 %, but only to 56.2 % if it is "
    "repaired with images, before any training. Add --dataset imagefolder --data-root DIR."
)


def compress(
    model: Path,
    output: Path | None,
    settings: CompressSettings,
    *,
    pruning: PruneSettings,
    training: OptimSettings,
    exporting: ExportSettings,
    source: ModelSource,
    data: DataSettings | None,
    seed: int,
    device: torch.device,
    progress: Progress,
    dry_run: bool = False,
    command: str = "metaprune compress",
) -> Compressed:
    """Make a model smaller: removal, repair, training, measuring, exporting, each as far as there are images for it.

    What an earlier, interrupted run into the same folder has done in the same way is not done again.

    Args:
        model: its file.
        output: the folder of all results; None: MODEL.compressed, beside the model.
        settings: which method comes first, how much may be lost, how speed is measured.
        pruning: how far, how units are ranked, and how what is left is repaired.
        training: of what is left; ``epochs`` may be 0.
        exporting: the formats.
        source: how the model's file is opened.
        data: the images; None: removal alone.
        seed: of the training.
        device: where it runs.
        progress: is told about each step.
        dry_run: plan and estimate only; write nothing.
        command: the command line, for the report.

    Raises:
        TargetError: a speed-up is out of reach, or all cost more than ``max_drop``.
        InputError: something cannot be used, or needs images.
    """
    _check(model, settings, pruning, data)
    metanetwork = _metanetwork(settings)
    folder = output or model.parent / f"{stem(model)}.compressed"
    if data is not None:
        data = with_task(data, [model], allow_import=source.allow_import, preprocessing=source.preprocessing)
    splits = None if data is None else task_of(data).splits(data)
    record = Steps.of(folder, "compress")
    course = Course(
        *(model, source, settings, pruning, training, exporting, data, splits, seed, device, progress, record)
    )
    if dry_run:
        return Compressed(folder, (), None, _notes_before(course), _plan(course, metanetwork))
    folder.mkdir(parents=True, exist_ok=True)
    progress.begin("compress", _steps_of(course, metanetwork))
    done = _all(course, metanetwork, command)
    progress.end()
    return done


def _check(model: Path, settings: CompressSettings, pruning: PruneSettings, data: DataSettings | None) -> None:
    if find_sources([model], ("model",)).many:
        raise InputError(
            "This command takes a single model.",
            got=f"a folder: {model}",
            next_step='for file in FOLDER/*.safetensors; do metaprune compress "$file" …; done',
        )
    if settings.method is not None and settings.method not in (known := [one.name for one in methods()]):
        raise InputError("Unknown method.", expected=", ".join(known), got=settings.method, where="--method")
    if data is None and (settings.max_drop is not None or pruning.needs_images):
        wanted = "--max-drop" if settings.max_drop is not None else "the criterion, repair or search"
        raise InputError(f"{wanted} needs images.", next_step="add --dataset and --data-root", where="--dataset")


def _metanetwork(settings: CompressSettings) -> Path | None:
    """The file of what comes before the removal, if anything does.

    Raises:
        InputError: there is none of that name, or the method is not one that comes before the removal.
    """
    name = settings.metanet
    if settings.method is not None:
        own = next(one for one in methods() if one.name == settings.method)
        if own.command != REWRITES:
            raise InputError(
                "This method has its own command.",
                got=own.name,
                where="--method",
                next_step=f"metaprune {own.command}, then metaprune finetune",
            )
        name = "builtin" if name == NO_METANET else name
    if name == NO_METANET:
        return None
    return learnt_by(REWRITES).files().find(Path(name))


def _wanted(course: Course) -> tuple[float, ...]:
    """The speed-ups in the order in which they are made; with a limit on the loss the largest come first."""
    given = tuple(dict.fromkeys(course.pruning.speedup))
    return given if course.settings.max_drop is None else tried(given)


def _trains(course: Course) -> bool:
    return course.data is not None and course.training.epochs > 0


def _has_test(course: Course) -> bool:
    """Whether there are test images; a task of one's own sees to its own."""
    data = course.data
    if data is None or data.task is not None:
        return data is not None
    with suppress(InputError):
        DATASETS[data.dataset].find(data, "test")
        return True
    return False


def _steps_of(course: Course, metanetwork: Path | None) -> int:
    """How many steps the progress has: all of them, if the first speed-up is within the limit."""
    each = 2 if course.data is None else 3 + 2 * _trains(course)
    made = 1 if course.settings.max_drop is not None else len(_wanted(course))
    return 1 + (metanetwork is not None) + (course.data is not None) + each * made + 1


def _all(course: Course, metanetwork: Path | None, command: str) -> Compressed:
    base = steps.brought_in(course)
    start = base if metanetwork is None else steps.rewritten(course, base, metanetwork)
    whole = None if course.data is None else steps.judged(course, "whole", base)
    if whole is not None and (doubt := steps.doubted(course, base, whole)):
        log.warning(doubt)
        course = replace(course, guesses=True)
    limit, metric = course.settings.max_drop, course.task.metrics[0]
    made: list[_Made] = []
    for speedup in _wanted(course):
        made.append(_smaller(course, start, base, speedup))
        if limit is not None and whole is not None and metric.loss(whole, made[-1].headline) <= limit:
            break
    kept = made if limit is None else _within(made, whole, limit, metric, course.model)
    exports = [steps.exported(course, one.output, one.speedup) for one in kept]
    return _described(course, base, whole, kept, exports, command)


@dataclass(frozen=True)
class _Made:
    """A smaller model before it is measured on the test images."""

    speedup: float
    figures: Mapping[str, Any]
    pruned: Path
    output: Path
    removed: float | None
    trained: float | None

    @property
    def headline(self) -> float:
        """On the validation images."""
        found = self.removed if self.trained is None or self.output == self.pruned else self.trained
        assert found is not None
        return found


def _smaller(course: Course, start: Path, base: Path, speedup: float) -> _Made:
    """One removal, trained; where the training made it worse, as it was before."""
    path, figures = steps.pruned(course, start, speedup)
    if course.data is None:
        return _Made(speedup, figures, path, path, None, None)
    removed = steps.judged(course, f"pruned-{speedup:g}x", path)
    if not _trains(course):
        return _Made(speedup, figures, path, path, removed, None)
    tuned = steps.trained(course, path, base, speedup)
    trained = steps.judged(course, f"finetuned-{speedup:g}x", tuned)
    better = tuned if course.task.metrics[0].gain(removed, trained) >= 0 else path
    return _Made(speedup, figures, path, better, removed, trained)


def _within(made: Sequence[_Made], whole: float | None, limit: float, metric: Metric, model: Path) -> list[_Made]:
    """The last one tried, which is within the limit, or none is.

    Raises:
        TargetError: none is.
    """
    assert whole is not None
    if metric.loss(whole, made[-1].headline) <= limit:
        return [made[-1]]
    costs = {one.speedup: metric.loss(whole, one.headline) for one in made}
    raise too_costly(costs, limit, metric, model)


def _described(
    course: Course,
    base: Path,
    whole: float | None,
    made: Sequence[_Made],
    exports: Sequence[Sequence[Path]],
    command: str,
) -> Compressed:
    """All that was made, measured on the test images, or where there are none on the validation images."""
    outputs = [one.output for one in made]
    tested = _has_test(course)
    rows: Mapping[str, Any] = {}
    if tested:
        every = dict.fromkeys(path for one in made for path in (one.pruned, one.output))
        found = steps.measured(course, base, list(every), command=command)
        rows, faster = found["rows"], {name: row["latency_speedup"] for name, row in found["rows"].items()}
    else:
        faster = steps.timed(course, base, outputs)
    seconds = sum(entry["seconds"] for entry in course.steps.entries.values())
    metric = None if course.data is None else course.task.metrics[0]
    models = []
    for one, files in zip(made, exports, strict=True):
        own = rows[stem(one.output)] if tested else {}
        before, after = (rows[stem(base)], own) if tested else ({}, {})
        verdict = Verdict(
            speedup=one.figures["speedup"],
            faster=faster[stem(one.output)],
            batch=course.settings.batch,
            metric=metric,
            before=before[metric.key] if metric and tested else whole,
            after=after[metric.key] if metric and tested else (None if metric is None else one.headline),
            seconds=seconds,
        )
        measured_on = None if metric is None else "test" if tested else "validation"
        models.append(_named(one, verdict, whole, files, measured_on))
    report = course.folder / "report.html" if tested else None
    notes = (*_notes_before(course), *_ranking(made), *_notes_after(course, models, tested=tested))
    return Compressed(course.folder, tuple(models), report, notes)


def _named(
    one: _Made, verdict: Verdict, whole: float | None, files: Sequence[Path], measured_on: str | None
) -> Smaller:
    figures = one.figures
    return Smaller(
        requested=one.speedup,
        verdict=verdict,
        measured_on=measured_on,
        macs=(figures["macs_before"], figures["macs_after"]),
        params=(figures["params_before"], figures["params_after"]),
        route=figures["route"],
        whole=whole,
        removed=one.removed,
        trained=one.trained,
        pruned_file=one.pruned,
        output=one.output,
        exports=tuple(files),
    )


def _notes_before(course: Course) -> tuple[str, ...]:
    return (WITHOUT_IMAGES,) if course.data is None else ()


def _ranking(made: Sequence[_Made]) -> tuple[str, ...]:
    figures = made[0].figures
    task = figures.get("as_task")
    return (ranked_for_task(figures["criterion"], figures["scope"], task),) if task else ()


def _notes_after(course: Course, models: Sequence[Smaller], *, tested: bool) -> Iterator[str]:
    """What a user should know of the result."""
    metric = course.task.metrics[0]
    for model in models:
        if model.trained is not None and model.removed is not None and metric.gain(model.removed, model.trained) < 0:
            yield (
                f"{model.requested:g}x: training made it worse on the validation images "
                f"({metric.written(model.removed)} before, {metric.written(model.trained)} after), so the model before "
                "it is kept; a smaller --lr or more --epochs may help."
            )
    if course.data is not None and not _trains(course) and models:
        yield "Nothing was trained. Training, for example with --epochs 10, usually recovers much of the loss."
    if course.data is not None and not tested:
        yield (
            "There are no test images (test/CLASS), so accuracy was measured on validation images, "
            "which the original model may have been trained on."
        )


def _plan(course: Course, metanetwork: Path | None) -> tuple[Estimate, ...]:
    """What would be done, and about how long it would take."""
    opened = open_model(course.model, course.source)
    if course.splits is not None:
        opened = opened.of_shape(course.splits.item_shape)
        check_fits(opened, course.splits, course.task)
    return tuple(
        estimated(
            opened,
            course.splits,
            course.data,
            course.training,
            course.pruning,
            device=course.device,
            speedups=_wanted(course)[:1] if course.settings.max_drop is not None else _wanted(course),
            imports=not is_artifact(course.model),
            rewrites=metanetwork is not None,
            teacher=course.teaches,
            formats=course.exporting.format,
            tested=_has_test(course),
        )
    )
