"""Models trained on, the usual way; or only their BatchNorm statistics measured anew."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from metaprune_cli.config import DataSettings, OptimSettings
from metaprune_cli.errors import InputError
from metaprune_cli.stages.images import check_fits
from metaprune_cli.stages.loading import ModelSource, open_model
from metaprune_cli.stages.made import Made
from metaprune_cli.stages.paths import find_sources, plan_targets
from metaprune_cli.stages.side_by_side import side_by_side
from metaprune_cli.stages.trainer import Trainer, shared_out
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.progress import Progress


@dataclass(frozen=True)
class Finetuned:
    """One model that was written; accuracies are percentages of the validation split, which is not the test set.

    ``epochs`` is 0 where an earlier run had finished this model already.
    """

    input: str
    output: str
    epochs: int
    val_top1: float
    val_loss: float


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
    resume: bool = False,
    jobs: int = 1,
    ranks: Ranks = ALONE,
    ddp: bool = False,
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
        resume: skip what an earlier run finished, and go on from its checkpoint.
        jobs: how many models are trained at a time (see ``side_by_side``).
        ranks: the processes of this run; they share the models out among themselves.
        ddp: instead, all of them train each model together.
    """
    if settings.epochs == 0 and not settings.recalibrate:
        raise InputError(
            "Nothing would be done: no epochs and no recalibration.",
            where="finetune.epochs",
            next_step="--epochs N, or --recalibrate for BatchNorm statistics alone",
        )
    sources = find_sources(models, ("model",))
    targets = plan_targets(sources, output, ("finetuned",), "model")
    between, together = shared_out(ranks, ddp=ddp, jobs=jobs)
    trainer = Trainer(settings, data, device, resume, together)
    work = functools.partial(_finetune, trainer=trainer, source=source, seed=seed)
    tasks = [(file.path, target) for file, (target,) in zip(sources.files, targets, strict=True)]
    return side_by_side(work, tasks, jobs=jobs, label="finetune", progress=progress, ranks=between)


def _finetune(
    task: tuple[Path, Path], progress: Progress, *, trainer: Trainer, source: ModelSource, seed: int
) -> Finetuned:
    """One model, from one file into another."""
    path, target = task
    settings, splits = trainer.settings, trainer.splits
    made = Made.by(
        "finetune",
        seed=seed,
        inputs={"model": path},
        finetune=settings,
        data=trainer.data,
        device=trainer.device.type,
        ranks=trainer.ranks.world,  # BatchNorm sees so much of a batch
    )
    metrics = trainer.metrics_if_done(made, target)
    epochs = 0 if metrics else settings.epochs
    if metrics is None:
        opened = open_model(path, source).of_shape(splits.input_shape[1:])
        check_fits(opened, splits)
        step: dict[str, float] = {"epochs": settings.epochs, "seed": seed, "recalibrated": settings.recalibrate}
        step |= {"sparsity": settings.sparsity} if settings.sparsity else {}
        metrics = trainer.train(opened, target, made, seed, step, progress)
    return Finetuned(str(path), str(target), epochs, metrics["val_top1"], metrics["val_loss"])
