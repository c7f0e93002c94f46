"""A model that is being trained, with all that has a part in one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.config import OptimSettings
from metaprune_cli.data.batch import Batch, take
from metaprune_cli.metrics.calling import call, device_of, in_fast_format, in_float32, memory_format_for
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.tasks.base import Meter, Task
from metaprune_cli.training.averaging import Average
from metaprune_cli.training.compiling import compiled
from metaprune_cli.training.distillation import Teacher
from metaprune_cli.training.distributed import Ranks
from metaprune_cli.training.mixing import Mixture, check_mixable
from metaprune_cli.training.numerics import not_finite
from metaprune_cli.training.precision import check_precision, in_precision
from metaprune_cli.training.replicas import replica
from metaprune_cli.training.state import Best, Record, TrainState


@dataclass(frozen=True, eq=False)
class Learner:
    """What every step changes, and what it needs.

    Attributes:
        model: is trained.
        optimizer: of its parameters.
        settings: of the training.
        task: what it is trained for, as the settings want it.
        ranks: the processes that train it together.
        forward: calls the model, compiled or not.
        teacher: whose outputs it learns from.
        average: of its weights.
        after_step: is called with the model and the learning rate after every step; may change its weights in place
            (``training/zeros.py``).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    settings: OptimSettings
    task: Task
    ranks: Ranks
    forward: Callable[..., Any]
    teacher: Teacher | None = None
    average: Average | None = None
    after_step: Callable[[nn.Module, float], None] | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        settings: OptimSettings,
        *,
        task: Task,
        device: torch.device,
        ranks: Ranks,
        teacher: nn.Module | None,
        batch: Callable[[], Batch],
        after_step: Callable[[nn.Module, float], None] | None = None,
    ) -> Learner:
        """A copy of ``model`` on ``device``, ready to learn; ``batch`` gives one like those it is to learn from.

        Raises:
            InputError: the device does not compute in the precision wanted, BatchNorm cannot be synchronised, or the
                task knows no mixtures or no smoothed labels.
        """
        check_precision(settings.precision, device)
        guard_convolutions()
        check_mixable(settings, task)
        model = replica(model, settings, ranks, device)
        if device.type == "cuda":  # elsewhere it is enough that the images are
            model = model.to(memory_format=memory_format_for(model, batch()[0]))
        forward: Callable[..., Any] = model
        if settings.compile:
            [(inputs, _)] = in_fast_format(model, [batch()])
            forward = compiled(model, inputs, settings.precision)
        return cls(
            model,
            make_optimizer(model, settings),
            settings,
            task.smoothed(settings.label_smoothing) if settings.label_smoothing else task,
            ranks,
            forward,
            None if teacher is None else Teacher(teacher, task, settings, device, take(batch().inputs, slice(1))),
            Average(model, settings.ema) if settings.ema else None,
            after_step,
        )

    @property
    def result(self) -> nn.Module:
        """What is evaluated and kept."""
        return self.model if self.average is None else self.average.model

    def gradients_(self, batch: Mixture, epoch: int, meter: Meter, penalty: Callable[[], Tensor] | None) -> float:
        """The gradient of one batch, in the parameters of this process; returns the mean loss.

        Args:
            batch: this process's part of it.
            epoch: counted from 0.
            meter: is told of the batch.
            penalty: is added to what is minimised, but not to the loss that is told.

        Raises:
            NumericsError: the loss is not finite; names the first parameter that is not.
        """
        with in_precision(self.settings.precision, device_of(batch.inputs)):
            output = in_float32(call(self.forward, batch.inputs))
        loss = batch.loss(self.task, output)
        if self.teacher is not None:
            loss = self.teacher.blended(loss, output, batch.inputs)
        [samples_of_all] = self.ranks.sum([len(batch)])
        self.optimizer.zero_grad()
        whole = loss if penalty is None else loss + penalty()
        (whole * (len(batch) / samples_of_all)).backward()
        self._check(loss.item(), epoch)
        with torch.no_grad():
            batch.tell_(meter, self.task, output)
        return loss.item()

    def step_(self, number: int) -> None:
        """Step number ``number`` of the run, counted from 0, along the gradients of all processes."""
        self.ranks.sum_gradients_(self.model.parameters())
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model, self.optimizer.param_groups[0]["lr"])
        if self.average is not None:
            self.average.update_(self.model, number)

    def state(self, history: list[Record], best: Best | None) -> TrainState:
        """A snapshot after the last epoch of ``history``."""
        average = None if self.average is None else self.average.model
        return TrainState.of(self.model, self.optimizer, history, epoch=len(history), best=best, average=average)

    def restore_(self, state: TrainState) -> None:
        """Go back to a snapshot.

        Raises:
            CorruptFileError: it is that of another model.
        """
        state.restore_(self.model, self.optimizer, None if self.average is None else self.average.model)

    def _check(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            gradients = ((f"the gradient of {name}", value.grad) for name, value in self.model.named_parameters())
            suspects = [*self.model.state_dict().items(), *gradients]
            raise not_finite(
                f"The training loss is {loss} in epoch {epoch + 1}.", suspects, next_step="try a smaller learning rate"
            )


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser that ``settings`` name, for every parameter that is not frozen."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    lr = settings.peak_lr
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=settings.weight_decay)
