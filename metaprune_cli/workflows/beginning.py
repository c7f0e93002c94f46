"""What a training of latents begins with: models from files, or a new one of an architecture; and its targets."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from metaprune_cli.config import DhpSettings, PruneSettings
from metaprune_cli.console.text import file_name
from metaprune_cli.errors import InputError
from metaprune_cli.workflows.anew import architecture_of, new_model, with_new_weights
from metaprune_cli.workflows.loading import ModelSource, Opened
from metaprune_cli.workflows.paths import SUFFIX, Source, Sources
from metaprune_cli.workflows.planning import goals_of
from metaprune_cli.workflows.teachers import open_fitting
from metaprune_cli.workflows.trainer import Trainer

log = logging.getLogger(__name__)

Begun = Literal["trained", "scratch"]
"""With which weights a training begins."""


@dataclass(frozen=True)
class Job:
    """One model to be trained: its file, None for a new one; those to write, one for every target; its teacher's."""

    path: Path | None
    targets: tuple[Path, ...]
    teacher: Path | None


@dataclass(frozen=True)
class Course:
    """What is the same for all models of one call.

    Attributes:
        settings: of the latents.
        pruning: the targets, and what may go.
        trainer: the rest of the training.
        source: how models are opened.
        seed: of everything random.
    """

    settings: DhpSettings
    pruning: PruneSettings
    trainer: Trainer
    source: ModelSource
    seed: int

    @property
    def speedups(self) -> tuple[float, ...]:
        """The targets, ascending."""
        return tuple(sorted(set(self.pruning.speedup)))


def what_goes(pruning: PruneSettings) -> PruneSettings:
    """The part of the settings that means something here.

    Raises:
        InputError: there is another target than a speed-up.
    """
    if any(goal.quantity != "macs" or goal.factor is None for goal in goals_of(pruning)):
        raise InputError(
            "DHP only supports targets given as speed-ups.",
            expected="how many times fewer MACs",
            got=", ".join(pruning.target),
            where="prune.target",
            next_step="--speedup X",
        )
    return PruneSettings(
        speedup=tuple(float(goal.factor or 1) for goal in goals_of(pruning)),
        max_ratio=pruning.max_ratio,
        round_to=pruning.round_to,
        keep_heads=pruning.keep_heads,
        route=pruning.route,
        rules=pruning.rules,
    )


def new_source(settings: DhpSettings, source: ModelSource, seed: int) -> Sources:
    """Where a new model would be, so that what is made of it has a name.

    Raises:
        InputError: nothing says what it is, or it was to be a trained one.
    """
    if source.arch is None or settings.start == "trained":
        raise InputError(
            "There is no model to start from.",
            expected="model files, or --arch NAME for a new one",
            got="--start trained, and no model" if source.arch else "neither",
            next_step="metaprune dhp MODEL..., or metaprune dhp --arch NAME",
        )
    path = Path(f"{file_name(source.arch.rpartition(':')[2].rpartition('.')[2])}-{seed}{SUFFIX}")
    return Sources((Source(path, path),), many=False, from_folder=False)


def open_job(job: Job, course: Course) -> tuple[Opened, Begun]:
    """The model with the weights that the training begins with.

    Raises:
        InputError: it is to begin with new weights, and no longer has the widths of its architecture.
    """
    source, trainer, seed = course.source, course.trainer, course.seed
    if job.path is None:
        architecture = architecture_of(str(source.arch), source.arch_args, trainer.splits, trainer.task)
        path = Path(f"{job.targets[0].name.removesuffix(SUFFIX).partition('.dhp-')[0]}{SUFFIX}")
        return new_model(architecture, seed, trainer.splits, trainer.task, path), "scratch"
    opened = open_fitting(job.path, source, trainer.splits, trainer.task)
    if opened.zeros is not None:
        log.warning("%s: its zeros are not kept, every weight is trained anew; zero weights afterwards", job.path)
        opened = replace(opened, zeros=None)
    if course.settings.start != "scratch":
        return opened, "trained"
    return with_new_weights(opened, seed), "scratch"
