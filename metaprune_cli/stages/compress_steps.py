"""The single steps of ``compress``: each calls the stage of its name, and is done once (``workflows/steps.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.artifacts import is_artifact
from metaprune_cli.config import (
    BenchSettings,
    CompressSettings,
    DataSettings,
    EvalSettings,
    ExportSettings,
    OptimSettings,
    PruneSettings,
    TransformSettings,
)
from metaprune_cli.data import Splits
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.models.registry import is_factory
from metaprune_cli.stages import bench, eval, export, finetune, prune, transform
from metaprune_cli.tasks import Task
from metaprune_cli.training.precision import resolved
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.doubts import doubt
from metaprune_cli.workflows.loading import ModelSource, open_model, save
from metaprune_cli.workflows.made import Made, code_of
from metaprune_cli.workflows.paths import SUFFIX, stem
from metaprune_cli.workflows.sensitivities import worth_measuring
from metaprune_cli.workflows.steps import Result, Steps
from metaprune_cli.workflows.task import task_of
from metaprune_cli.workflows.teachers import open_fitting
from metaprune_cli.workflows.trainer import Trainer

Figures = tuple[Mapping[str, Any], Sequence[Path]]
"""Of a step: what it has to say, and the files that it wrote."""


SAID = (
    "achieved",
    "speedup",
    "macs_before",
    "macs_after",
    "params_before",
    "params_after",
    "error",
    "route",
    "criterion",
    "scope",
    "as_task",
)
"""What is kept of a removal."""


@dataclass(frozen=True, eq=False)
class Course:
    """One model, its images, and how each step is done.

    Attributes:
        model: the file as it was given.
        source: how it is opened.
        settings: of the whole.
        pruning: of the removal; its speed-ups are what is wanted.
        training: of the finetuning.
        exporting: the formats.
        data: the images; None: there are none.
        splits: the same, read.
        seed: of everything random.
        device: where it runs.
        progress: is told about each step.
        steps: the folder and its record.
        harms: what each family of the model can lose, measured once for all speed-ups.
        guesses: whether the model does no better than guessing.
    """

    model: Path
    source: ModelSource
    settings: CompressSettings
    pruning: PruneSettings
    training: OptimSettings
    exporting: ExportSettings
    data: DataSettings | None
    splits: Splits | None
    seed: int
    device: torch.device
    progress: Progress
    steps: Steps
    harms: dict[int, Mapping[int, float]] = field(default_factory=dict)
    guesses: bool = False

    @property
    def folder(self) -> Path:
        """Where all files go."""
        return self.steps.file.parent

    @property
    def task(self) -> Task:
        """What the model is for."""
        return task_of(self.data or DataSettings())

    @property
    def teaches(self) -> bool:
        """Whether what is left learns from the whole model too."""
        asked = self.settings.teacher
        return self.task.learns_from_whole and not self.guesses if asked is None else asked

    @property
    def ours(self) -> ModelSource:
        """How files are opened that the steps write: they say themselves what they are.

        What a user named may be imported again: that it is in a file now makes it no less the user's word.
        """
        named = self.source.arch is not None and is_factory(self.source.arch)
        return ModelSource(allow_import=self.source.allow_import or named, preprocessing=self.source.preprocessing)

    def run(self, name: str, work: Callable[[], Figures], inputs: Mapping[str, Path], **settings: Any) -> Result:
        """A step, unless it is done."""
        images = {} if self.splits is None else {"data": self.splits.digest}
        code = code_of(*filter(None, (self.source.arch, self.pruning.criterion)))
        made = Made.by(
            "compress", seed=self.seed, inputs=inputs, digests=images | code, step=name, data=self.data, **settings
        )
        result = self.steps.run(name, made, work)
        self.progress.step()
        return result


def brought_in(course: Course) -> Path:
    """The model as a file of ours, which later steps open without being told how."""
    if is_artifact(course.model):
        course.progress.step()
        return course.model
    target = course.folder / f"{stem(course.model)}{SUFFIX}"

    def work() -> Figures:
        if course.data is None or course.splits is None:
            opened = open_model(course.model, course.source)
        else:
            opened = open_fitting(course.model, course.source, course.splits, course.task)
            opened = replace(opened, task=course.data.task, preprocessing=course.data.preprocessing)
        made = Made.by("zoo", inputs={"model": course.model}, digests=code_of(opened.architecture.name))
        save(opened.model, target, opened, made, step={}, metrics={})
        return {"output": target.name}, [target]

    source = course.source
    said = {"arch": source.arch, "arch_args": dict(source.arch_args), "input_shape": source.input_shape}
    course.run("import", work, {"model": course.model}, key=source.key, **said)
    return target


def rewritten(course: Course, base: Path, metanetwork: Path) -> Path:
    """The model through what a method has learnt."""
    settings = TransformSettings(recalibrate=course.data is not None)

    def work() -> Figures:
        (done,) = transform.transform(
            [base],
            course.folder,
            settings,
            metanetwork=metanetwork,
            source=course.ours,
            data=course.data,
            device=course.device,
            progress=course.progress,
        )
        return {"output": Path(done.output).name, "change": done.change}, [Path(done.output)]

    done = course.run("transform", work, {"model": base, "learnt": metanetwork}, transform=settings)
    return course.folder / str(done.figures["output"])


def pruned(course: Course, path: Path, speedup: float) -> tuple[Path, Mapping[str, Any]]:
    """The smaller model, and its figures."""
    settings = replace(course.pruning, speedup=(speedup,))
    if _is_left_to_us(course):
        opened = open_model(path, course.ours)
        example = opened.example()
        given = (opened.model, example, count_macs(opened.model, example), settings.repair_images, course.task)
        if opened.importance is None and worth_measuring(*given):
            settings = replace(settings, scope="sensitivity")

    def work() -> Figures:
        (small,) = prune.prune(
            [path],
            course.folder,
            settings,
            source=course.ours,
            data=course.data,
            device=course.device,
            progress=course.progress,
            harms=course.harms,
        )
        output = Path(str(small.output))
        figures = {name: getattr(small, name) for name in SAID}
        return {**figures, "output": output.name, "locked": len(small.held)}, [output]

    done = course.run(f"prune-{speedup:g}x", work, {"model": path}, prune=settings)
    return course.folder / str(done.figures["output"]), done.figures


def _is_left_to_us(course: Course) -> bool:
    """Whether there are images, and neither the user nor the task says how units are to be ranked."""
    asked = course.pruning
    ranked = asked.scope != "auto" or asked.criterion != "auto" or asked.search > 0 or course.task.criterion is not None
    return course.data is not None and asked.repair == "least-squares" and not ranked


def trained(course: Course, path: Path, base: Path, speedup: float) -> Path:
    """What is left, finetuned."""
    settings, data = course.training, course.data
    assert data is not None
    teacher = base if course.teaches else None
    target = course.folder / f"{stem(path)}.finetuned{SUFFIX}"

    def work() -> Figures:
        (tuned,) = finetune.finetune(
            [path],
            target,
            settings,
            source=course.ours,
            data=data,
            seed=course.seed,
            device=course.device,
            progress=course.progress,
            teacher=teacher,
            resume=True,
        )
        return {"output": Path(tuned.output).name, "epochs": settings.epochs}, [Path(tuned.output)]

    used = replace(settings, precision=resolved(settings.precision, course.device))
    inputs = {"model": path} | ({} if teacher is None else {"teacher": teacher})
    done = course.run(f"finetune-{speedup:g}x", work, inputs, finetune=used, device=course.device.type)
    return course.folder / str(done.figures["output"])


def judged(course: Course, name: str, path: Path) -> float:
    """The task's first metric of a model on the validation images."""
    data = course.data
    assert data is not None

    def work() -> Figures:
        trainer = Trainer(course.training, data, course.device, resume=False)
        opened = open_fitting(path, course.ours, trainer.splits, course.task)
        return {"headline": trainer.headline(opened)}, []

    return float(course.run(f"validate-{name}", work, {"model": path}).figures["headline"])


def doubted(course: Course, path: Path, headline: float) -> str | None:
    """What is to be said of a whole model that does no better than guessing; None where it does."""
    data, splits = course.data, course.splits
    assert data is not None
    assert splits is not None
    model = open_fitting(path, course.ours, splits, course.task).model
    return doubt(model, data, splits, course.task, headline, course.device)


def exported(course: Course, path: Path, speedup: float) -> list[Path]:
    """The smaller model in every format that is asked for."""

    def work() -> Figures:
        files = export.export(
            [path],
            None,
            course.exporting,
            source=course.ours,
            data=course.data,
            progress=course.progress,
        )
        return {"outputs": [Path(file.output).name for file in files]}, [Path(file.output) for file in files]

    done = course.run(f"export-{speedup:g}x", work, {"model": path}, export=course.exporting)
    return [course.folder / name for name in done.figures["outputs"]]


def measured(course: Course, base: Path, models: Sequence[Path], *, command: str) -> dict[str, Any]:
    """On the test images: every model's figures by its file's stem; the report."""
    data = course.data
    assert data is not None
    settings = EvalSettings(latency_batch=course.settings.batch)
    page = course.folder / "report.html"

    def work() -> Figures:
        found = eval.evaluate(
            [base, *models],
            course.folder / "report",
            settings,
            base=base,
            pruning=None,
            source=course.ours,
            data=data,
            device=course.device,
            progress=course.progress,
            report=page,
            command=command,
        )
        rows = {row.name: row.record() for row in found.rows}
        return {"rows": rows, "setting": dict(found.setting), "report": page.name}, found.written

    inputs = {"model": base} | {f"model{place}": path for place, path in enumerate(models)}
    return dict(course.run("eval", work, inputs, eval=settings, device=course.device.type).figures)


def timed(course: Course, base: Path, models: Sequence[Path]) -> dict[str, float]:
    """How many times faster each model is than the whole one, by its file's stem."""
    settings = BenchSettings(batch=(course.settings.batch,))

    def work() -> Figures:
        found = bench.bench(
            [base, *models],
            settings,
            base=base,
            source=course.ours,
            data=course.data,
            device=course.device,
            threads=None,
            progress=course.progress,
        )
        return {"faster": {row.name: row.latency_speedup for row in found.rows}}, []

    inputs = {"model": base} | {f"model{place}": path for place, path in enumerate(models)}
    return dict(course.run("bench", work, inputs, bench=settings, device=course.device.type).figures["faster"])
