"""The models for meta-training: trained here, or imported from files; and those held out of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from metaprune_cli.config import DataSettings, ZooSettings
from metaprune_cli.console.text import file_name
from metaprune_cli.data import Splits
from metaprune_cli.models import Architecture, build, list_architectures
from metaprune_cli.models.registry import takes_argument
from metaprune_cli.stages.images import check_fits
from metaprune_cli.stages.loading import ModelSource, Opened, open_model, save
from metaprune_cli.stages.made import Made, code_of
from metaprune_cli.stages.paths import SUFFIX, check_targets, find_sources, stem
from metaprune_cli.stages.side_by_side import side_by_side
from metaprune_cli.stages.trainer import Trainer, shared_out
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.precision import resolved
from metaprune_cli.training.progress import Progress
from metaprune_cli.training.seeds import seed_everything

Role = Literal["train", "validation", "heldout"]


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo; accuracy is the percentage on the validation split, None for imported models."""

    output: str
    role: Role
    architecture: str
    seed: int | None
    val_top1: float | None


@dataclass(frozen=True)
class Task:
    """One model to be trained: decided before any training starts."""

    arch: str
    arch_args: dict[str, Any]
    seed: int
    role: Role

    def target(self, folder: Path) -> Path:
        """Its file: ``folder/<role>/<arch>-<seed>.safetensors``."""
        name = file_name(self.arch.rpartition(":")[2].rpartition(".")[2])
        return folder / self.role / f"{name}-{self.seed}{SUFFIX}"


def tasks(settings: ZooSettings) -> tuple[Task, ...]:
    """Every model of the zoo, each with a seed of its own.

    ``settings.validation`` of the models that are not held out choose the metanetwork: the last ones of the members,
    in turn, so that they are as varied as can be.
    """
    seeds = itertools.count(settings.seed)
    validation = _validation(settings)
    found: list[Task] = []
    for place, member in enumerate(settings.members):
        kept = member.count - validation[place]
        counts: dict[Role, int] = {"train": kept, "validation": validation[place], "heldout": member.heldout}
        roles = (role for role, count in counts.items() for _ in range(count))
        found.extend(Task(member.arch, dict(member.arch_args), next(seeds), role) for role in roles)
    return tuple(found)


def zoo(
    output: Path,
    settings: ZooSettings,
    *,
    data: DataSettings,
    device: torch.device,
    progress: Progress,
    resume: bool = False,
    jobs: int = 1,
    ranks: Ranks = ALONE,
    ddp: bool = False,
) -> tuple[ZooModel, ...]:
    """Train every model of the zoo into ``output/train``, ``output/validation`` and ``output/heldout``.

    Args:
        output: the folder.
        settings: which models, and how they are trained.
        data: the images.
        device: where the training runs.
        progress: is told about each model and each epoch.
        resume: skip what an earlier run finished, and go on from its checkpoint.
        jobs: how many models are trained at a time (see ``side_by_side``).
        ranks: the processes of this run; they share the models out among themselves.
        ddp: instead, all of them train each model together.
    """
    todo = tasks(settings)
    check_targets([task.target(output) for task in todo], "model")
    between, together = shared_out(ranks, ddp=ddp, jobs=jobs)
    work = functools.partial(_train, output=output, trainer=Trainer(settings.train, data, device, resume, together))
    return side_by_side(work, todo, jobs=jobs, label="zoo", progress=progress, ranks=between)


def import_zoo(
    models: Sequence[Path], output: Path, settings: ZooSettings, *, source: ModelSource, progress: Progress
) -> tuple[ZooModel, ...]:
    """Bring models that exist already into the zoo; the last ``settings.validation`` of them go to ``validation``.

    Args:
        models: files, or folders of model artifacts.
        output: the zoo's folder.
        settings: how many are for validation.
        source: how foreign model files are opened.
        progress: is told about each model.
    """
    files = find_sources(models, ("model",)).files
    first = len(files) - settings.validation
    roles: list[Role] = ["train" if place < first else "validation" for place in range(len(files))]
    targets = [output / role / f"{stem(file.path)}{SUFFIX}" for role, file in zip(roles, files, strict=True)]
    check_targets(targets, "model", inputs=[file.path for file in files])
    progress.begin("import", len(files))
    done = []
    for file, role, target in zip(files, roles, targets, strict=True):
        opened = open_model(file.path, source)
        save(opened.model, target, opened, Made.by("zoo", inputs={"model": file.path}), step={}, metrics={})
        done.append(ZooModel(str(target), role, opened.architecture.name, None, None))
        progress.step()
    progress.end()
    return tuple(done)


def _train(task: Task, progress: Progress, *, output: Path, trainer: Trainer) -> ZooModel:
    target = task.target(output)
    architecture = architecture_of(task, trainer.splits)
    made = Made.by(
        "zoo",
        seed=task.seed,
        digests={"data": trainer.splits.digest} | code_of(architecture.name),
        architecture=architecture,
        train=replace(trainer.settings, precision=resolved(trainer.settings.precision, trainer.device)),
        data=trainer.data,
        device=trainer.device.type,
        ranks=trainer.ranks.world,  # BatchNorm sees so much of a batch
    )
    metrics = trainer.metrics_if_done(made, target)
    if metrics is None:
        seed_everything(task.seed)
        opened = Opened(build(architecture).eval(), architecture, (), target)
        check_fits(opened, trainer.splits)
        step = {"input": None, "arch": task.arch, "seed": task.seed}
        metrics = trainer.train(opened, target, made, task.seed, step, progress)
    return ZooModel(str(target), task.role, task.arch, task.seed, metrics["val_top1"])


def architecture_of(task: Task, splits: Splits) -> Architecture:
    """The member's architecture for these images; what params.yaml says goes first, a factory is told nothing else."""
    channels, size, _ = splits.input_shape[1:]
    facts = {"num_classes": splits.num_classes, "in_channels": channels, "image_size": size}
    known = task.arch in list_architectures()
    args = {name: value for name, value in facts.items() if known and takes_argument(task.arch, name)}
    return Architecture(task.arch, args | task.arch_args, splits.input_shape[1:])


def _validation(settings: ZooSettings) -> list[int]:
    """For each member, how many of its models are for validation."""
    taken = [0] * len(settings.members)
    places = [place for place, member in enumerate(settings.members) if member.count]
    for place in itertools.islice(itertools.cycle(reversed(places)), settings.validation):
        if taken[place] < settings.members[place].count:
            taken[place] += 1
    return taken
