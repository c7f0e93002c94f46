"""A model's loss and metrics over many batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune_cli.data.batch import AnyBatch, size_of
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.metrics.calling import evaluating, in_fast_format
from metaprune_cli.tasks.base import Meter, Metric, Task


@dataclass(frozen=True)
class Score:
    """The figures of one model: the metrics' values by key, the mean loss, and over how many samples."""

    metrics: tuple[Metric, ...]
    values: Mapping[str, float]
    loss: float
    samples: int

    @property
    def metric(self) -> Metric:
        """The headline."""
        return self.metrics[0]

    @property
    def headline(self) -> float:
        """The value of the headline."""
        return self.values[self.metric.key]

    def beside(self, name: str, other: Score) -> Score:
        """The same with the metrics of a further test set, whose name stands behind theirs."""
        further = tuple(
            replace(metric, key=f"{metric.key}_{name}", label=f"{metric.label} {name}") for metric in other.metrics
        )
        values = {new.key: other.values[old.key] for new, old in zip(further, other.metrics, strict=True)}
        return replace(self, metrics=self.metrics + further, values={**self.values, **values})


def beside_each_other(scores: Mapping[str, Score]) -> Score:
    """One score of several test sets, by name: the first's figures, and the others' with their names behind."""
    (_, score), *others = scores.items()
    for name, other in others:
        score = score.beside(name, other)
    return score


class Tally:
    """What is added up to a score; tallies of parts can be merged, and are then as one of the whole.

    Args:
        task: says what is measured.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._meter = task, task.meter()
        self._own = torch.zeros(2, dtype=torch.float64)

    def update(self, output: Any, targets: Any) -> None:
        """Take a batch into account."""
        self._meter.update(output, targets)
        self._own[0] += self._task.total_loss(output, targets).double().cpu()
        self._own[1] += size_of(targets)

    def sums(self) -> Tensor:
        """All that was seen so far, float64 (n,) on the CPU."""
        return torch.cat([self._own, self._meter.sums()])

    def merge(self, sums: Tensor) -> None:
        """Take what another tally has seen into account."""
        self._own += sums[:2]
        self._meter.merge(sums[2:])

    def score(self) -> Score:
        """The figures.

        Raises:
            InputError: nothing was seen, or the task's meter does not measure all of its metrics.
            NumericsError: the loss is not finite.
        """
        total, samples = self._own.tolist()
        if not samples:
            raise InputError("There are no images to evaluate on.")
        if not math.isfinite(total):
            raise NumericsError(
                "The model's outputs are not finite.", got=f"loss {total / samples}", next_step="inspect its parameters"
            )
        values = {metric.key: value_of(metric, self._meter, self._task) for metric in self._task.metrics}
        return Score(self._task.metrics, values, total / samples, int(samples))


def value_of(metric: Metric, meter: Meter, task: Task) -> float:
    """What a meter says of a metric.

    Raises:
        InputError: nothing.
    """
    values = meter.values()
    if metric.key not in values:
        raise InputError(
            f"A meter of the task {task.name} does not measure what it should.",
            expected=metric.key,
            got=", ".join(values),
            next_step="the keys of what values() returns are those of the task's metrics",
        )
    return float(values[metric.key])


def measure(model: nn.Module, batches: Iterable[AnyBatch], device: torch.device | str, task: Task) -> Score:
    """The figures of ``model``, which lives on ``device``, in eval mode; its modes are put back.

    Args:
        model: the model.
        batches: inputs and targets.
        device: where it is measured.
        task: says what.

    Raises:
        InputError: there is nothing to measure on, or the outputs do not fit the targets.
        NumericsError: the loss is not finite.
    """
    return tallied(model, batches, device, task).score()


def tallied(model: nn.Module, batches: Iterable[AnyBatch], device: torch.device | str, task: Task) -> Tally:
    """The sums of that, for whoever merges several."""
    tally = Tally(task)
    with evaluating(model):
        for inputs, targets in in_fast_format(model, batches):
            inputs, targets = (pytree.tree_map_only(Tensor, lambda t: t.to(device), part) for part in (inputs, targets))
            tally.update(task.run(model, inputs), targets)
    return tally
