"""Models trained on, the usual way; or only their BatchNorm statistics measured anew."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.config import DataSettings, OptimSettings
from metaprune_cli.errors import InputError
from metaprune_cli.tasks import Metric
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.loop import steps_in
from metaprune_cli.training.precision import resolved
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.arms import is_removal
from metaprune_cli.workflows.lineage import descent, trained_while_removing
from metaprune_cli.workflows.loading import ModelSource, Opened
from metaprune_cli.workflows.made import Made, code_of
from metaprune_cli.workflows.paths import find_sources, plan_targets
from metaprune_cli.workflows.side_by_side import side_by_side
from metaprune_cli.workflows.task import with_task
from metaprune_cli.workflows.teachers import open_fitting, open_teacher, teachers_for
from metaprune_cli.workflows.trainer import Trainer, shared_out

NOTED = ("sparsity", "mixup", "cutmix", "ema", "patience")
"""Settings that the lineage names where they are not 0."""


@dataclass(frozen=True)
class Finetuned:
    """One model that was written; ``headline`` is the task's metric on the validation split, which is not the test set.

    ``before`` is that of the model as it was read. ``epochs`` is 0 where an earlier run had finished this model
    already. With patience the model is that of ``best_epoch``. ``unrepaired``: whether units were removed last, and
    what was left was not fitted to what the whole model did.
    """

    input: str
    output: str
    epochs: int
    metric: Metric
    headline: float
    val_loss: float
    best_epoch: int | None = None
    before: float | None = None
    unrepaired: bool = False

    @property
    def worse_by(self) -> float:
        """How much of the headline the training has cost, where it has; else 0."""
        return 0.0 if self.before is None else max(0.0, self.metric.loss(self.before, self.headline))

    def to_document(self) -> dict[str, Any]:
        """Plain values, the headline by its metric's name."""
        return {
            "input": self.input,
            "output": self.output,
            "epochs": self.epochs,
            f"val_{self.metric.key}": self.headline,
            "val_loss": self.val_loss,
            "best_epoch": self.best_epoch,
            f"before_{self.metric.key}": self.before,
        }


@dataclass(frozen=True)
class Job:
    """One model to be finetuned: its file, the one to write, and its teacher's."""

    path: Path
    target: Path
    teacher: Path | None


def finetune(
    models: Sequence[Path],
    output: Path | None,
    settings: OptimSettings,
    *,
    source: ModelSource,
    data: DataSettings,
    seed: int,
    device: torch.device,
    progress: Progress,
    teacher: Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    ranks: Ranks = ALONE,
    ddp: bool = False,
    in_all: bool = False,
) -> tuple[Finetuned, ...]:
    """Finetune every model on the training split.

    Args:
        models: files, or folders of model artifacts.
        output: a file, or a folder where there are several inputs.
        settings: how each is trained; ``epochs`` may be 0 where ``recalibrate`` is on.
        source: how foreign model files are opened.
        data: the images.
        seed: of the order of the images and their augmentation, the same for every model.
        device: where the training runs.
        progress: is told about each model and each epoch.
        teacher: a model whose outputs all learn from, or a folder with each model's own base in it.
        resume: skip what an earlier run finished, and go on from its checkpoint.
        jobs: how many models are trained at a time (see ``side_by_side``).
        ranks: the processes of this run; they share the models out among themselves.
        ddp: instead, all of them train each model together.
        in_all: the epochs count those for which a method has trained a model while it removed units.

    Raises:
        InputError: nothing would be done, or something cannot be used.
    """
    if settings.epochs == 0 and not settings.recalibrate:
        raise InputError(
            "There is nothing to do: no epochs and no recalibration.",
            where="finetune.epochs",
            next_step="--epochs N, or --recalibrate for BatchNorm statistics alone",
        )
    sources = find_sources(models, ("model",))
    targets = plan_targets(sources, output, ("finetuned",), "model")
    between, together = shared_out(ranks, ddp=ddp, jobs=jobs)
    taught_by = [] if teacher is None else find_sources([teacher], ("model",)).files
    every = [file.path for file in (*sources.files, *taught_by)]
    data = with_task(data, every, allow_import=source.allow_import, preprocessing=source.preprocessing)
    trainer = Trainer(settings, data, device, resume, together)
    work = functools.partial(_finetune, trainer=trainer, source=source, seed=seed, in_all=in_all)
    paths = [file.path for file in sources.files]
    teachers = teachers_for(paths, teacher, source, trainer.splits, trainer.task)
    todo = [Job(path, target, taught) for path, (target,), taught in zip(paths, targets, teachers, strict=True)]
    return side_by_side(work, todo, jobs=jobs, label="finetune", progress=progress, ranks=between)


def _finetune(
    job: Job, progress: Progress, *, trainer: Trainer, source: ModelSource, seed: int, in_all: bool
) -> Finetuned:
    """One model, from one file into another."""
    splits, task = trainer.splits, trainer.task
    teacher = {} if job.teacher is None else {"teacher": job.teacher}
    opened = open_fitting(job.path, source, splits, task)
    settings = trainer.settings
    if in_all:
        settings = replace(settings, epochs=_left(settings.epochs, opened))
    pruned = descent(opened.lineage, opened.path).step != "unpruned"
    settings = settings.for_model(pruned=pruned, steps_per_epoch=steps_in(splits.train, trainer.data.batch_size))
    trainer = replace(trainer, settings=settings)
    taught = {name: open_teacher(path, source, splits, task) for name, path in teacher.items()}
    built = {name: found.architecture for name, found in ({"model": opened} | taught).items()}
    made = Made.by(
        "finetune",
        seed=seed,
        inputs={"model": job.path} | teacher,
        digests={"data": splits.digest} | code_of(*(architecture.name for architecture in built.values())),
        finetune=replace(settings, precision=resolved(settings.precision, trainer.device)),
        architectures={name: architecture.to_document() for name, architecture in built.items()},
        data=trainer.data,
        device=trainer.device.type,
        ranks=trainer.ranks.world,  # BatchNorm sees so much of a batch
    )
    metrics = trainer.metrics_if_done(made, job.target)
    done = metrics is not None
    before = trainer.headline(opened)
    if metrics is None:
        step: dict[str, Any] = {"epochs": settings.epochs, "seed": seed, "recalibrated": settings.recalibrate}
        step |= {name: path.name for name, path in teacher.items()}
        step |= {name: value for name in NOTED if (value := getattr(settings, name))}
        models = {name: found.model for name, found in taught.items()}
        metrics = trainer.train(opened, job.target, made, seed, step, progress, **models)
    return Finetuned(
        str(job.path),
        str(job.target),
        epochs=0 if done else int(metrics.get("epochs", settings.epochs)),
        metric=task.metrics[0],
        headline=metrics[f"val_{task.metrics[0].key}"],
        val_loss=metrics["val_loss"],
        best_epoch=int(metrics["best_epoch"]) if settings.patience else None,
        before=before,
        unrepaired=bool(opened.lineage) and is_removal(opened.lineage[-1]) and "repair" not in opened.lineage[-1],
    )


def _left(epochs: int, opened: Opened) -> int:
    """Of epochs in all, those that a model has not had yet.

    Raises:
        InputError: there are none.
    """
    had = trained_while_removing(opened.lineage)
    if had >= epochs:
        raise InputError(
            "No epochs are left for this model.",
            expected=f"more than the {had} for which it was trained while its units went",
            got=f"{epochs} in all",
            where=opened.path,
            next_step="more --epochs, or leave --in-all out",
        )
    return epochs - had
