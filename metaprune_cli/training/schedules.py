"""The learning rate as a pure function of the step, so that no schedule has a state to resume."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from metaprune_cli.config import ScheduleName


@runtime_checkable
class Schedule(Protocol):
    """What settings say about the learning rate: those of ``zoo``, ``finetune`` and ``meta-train`` all do."""

    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def peak_lr(self) -> float: ...  # noqa: D102
    @property
    def schedule(self) -> ScheduleName: ...  # noqa: D102
    @property
    def milestones(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def gamma(self) -> float: ...  # noqa: D102
    @property
    def warmup_epochs(self) -> int: ...  # noqa: D102


def learning_rate(schedule: Schedule, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one step.

    It rises linearly through the warm-up; then it is constant, falls along half a cosine towards 0 at the last epoch's
    end, or is multiplied by ``gamma`` at every milestone (epochs, counted from the start of the run).

    Args:
        schedule: the settings.
        step: optimiser steps before this one.
        steps_per_epoch: optimiser steps of one epoch.
    """
    epoch = step / steps_per_epoch
    peak = schedule.peak_lr
    if epoch < schedule.warmup_epochs:
        return peak * (step + 1) / (schedule.warmup_epochs * steps_per_epoch)
    if schedule.schedule == "cosine":
        fraction = (epoch - schedule.warmup_epochs) / max(schedule.epochs - schedule.warmup_epochs, 1)
        return peak * (1 + math.cos(math.pi * fraction)) / 2
    if schedule.schedule == "multistep":
        return peak * schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones)
    return peak
