"""The models for meta-training: trained here, or imported from files; and those held out of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from metaprune_cli.config import NOTHING_SAID, DataSettings, Preprocessing, ZooSettings
from metaprune_cli.console.text import file_name
from metaprune_cli.tasks import Metric, find_task
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.precision import resolved
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.anew import architecture_of, new_model
from metaprune_cli.workflows.loading import ModelSource, open_model, save
from metaprune_cli.workflows.made import Made, code_of
from metaprune_cli.workflows.paths import SUFFIX, check_targets, find_sources, stem
from metaprune_cli.workflows.side_by_side import side_by_side
from metaprune_cli.workflows.task import with_task
from metaprune_cli.workflows.trainer import Trainer, shared_out

Role = Literal["train", "validation", "heldout"]


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo; ``headline`` is the task's metric on the validation split, None for imported models."""

    output: str
    role: Role
    architecture: str
    seed: int | None
    metric: Metric
    headline: float | None

    def to_document(self) -> dict[str, Any]:
        """Plain values, the headline by its metric's name."""
        return {
            "output": self.output,
            "role": self.role,
            "architecture": self.architecture,
            "seed": self.seed,
            f"val_{self.metric.key}": self.headline,
        }


@dataclass(frozen=True)
class Job:
    """One model to be trained: decided before any training starts."""

    arch: str
    arch_args: dict[str, Any]
    seed: int
    role: Role

    def target(self, folder: Path) -> Path:
        """Its file: ``folder/<role>/<arch>-<seed>.safetensors``."""
        name = file_name(self.arch.rpartition(":")[2].rpartition(".")[2])
        return folder / self.role / f"{name}-{self.seed}{SUFFIX}"


def jobs_of(settings: ZooSettings) -> tuple[Job, ...]:
    """Every model of the zoo, each with a seed of its own.

    ``settings.validation`` of the models that are not held out choose the metanetwork: the last ones of the members,
    in turn, so that they are as varied as can be.
    """
    seeds = itertools.count(settings.seed)
    validation = _validation(settings)
    found: list[Job] = []
    for place, member in enumerate(settings.members):
        kept = member.count - validation[place]
        counts: dict[Role, int] = {"train": kept, "validation": validation[place], "heldout": member.heldout}
        roles = (role for role, count in counts.items() for _ in range(count))
        found.extend(Job(member.arch, dict(member.arch_args), next(seeds), role) for role in roles)
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
    preprocessing: Preprocessing = NOTHING_SAID,
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
        preprocessing: of the images, which every model remembers; what is not said is as the data set has it.

    Raises:
        InputError: a member cannot be built or does not fit the data; before anything is trained.
    """
    todo = jobs_of(settings)
    check_targets([job.target(output) for job in todo], "model")
    data = with_task(data, (), allow_import=True, preprocessing=preprocessing)
    between, together = shared_out(ranks, ddp=ddp, jobs=jobs)
    trainer = Trainer(settings.train.for_model(pruned=False), data, device, resume, together)
    _check_members(todo, output, trainer)
    work = functools.partial(_train, output=output, trainer=trainer)
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
        done.append(ZooModel(str(target), role, opened.architecture.name, None, find_task(None).metrics[0], None))
        progress.step()
    progress.end()
    return tuple(done)


def _check_members(jobs: Sequence[Job], output: Path, trainer: Trainer) -> None:
    """Build each architecture once: a mistake in the last member is said before the first one is trained.

    Raises:
        InputError: one cannot be built, or does not fit the data.
    """
    members = {(job.arch, *sorted(job.arch_args.items())): job for job in jobs}
    for job in members.values():
        architecture = architecture_of(job.arch, job.arch_args, trainer.splits, trainer.task)
        new_model(architecture, job.seed, trainer.splits, trainer.task, job.target(output))


def _train(job: Job, progress: Progress, *, output: Path, trainer: Trainer) -> ZooModel:
    target = job.target(output)
    architecture = architecture_of(job.arch, job.arch_args, trainer.splits, trainer.task)
    made = Made.by(
        "zoo",
        seed=job.seed,
        digests={"data": trainer.splits.digest} | code_of(architecture.name),
        architecture=architecture,
        train=replace(trainer.settings, precision=resolved(trainer.settings.precision, trainer.device)),
        data=trainer.data,
        device=trainer.device.type,
        ranks=trainer.ranks.world,  # BatchNorm sees so much of a batch
    )
    metrics = trainer.metrics_if_done(made, target)
    if metrics is None:
        opened = new_model(architecture, job.seed, trainer.splits, trainer.task, target)
        step = {"input": None, "arch": job.arch, "seed": job.seed}
        metrics = trainer.train(opened, target, made, job.seed, step, progress)
    metric = trainer.task.metrics[0]
    return ZooModel(str(target), job.role, job.arch, job.seed, metric, metrics[f"val_{metric.key}"])


def _validation(settings: ZooSettings) -> list[int]:
    """For each member, how many of its models are for validation."""
    taken = [0] * len(settings.members)
    places = [place for place, member in enumerate(settings.members) if member.count]
    for place in itertools.islice(itertools.cycle(reversed(places)), settings.validation):
        if taken[place] < settings.members[place].count:
            taken[place] += 1
    return taken
