"""Evaluated models: a row each, and groups of those that are alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from metaprune_cli.tasks import Metric, Score
from metaprune_cli.workflows.arms import Arm
from metaprune_cli.workflows.lineage import Step


@dataclass(frozen=True)
class Row:
    """One evaluated model.

    Attributes:
        name: what the model is called: its file's stem, with the speed-up behind it on a curve.
        origin: the trained model it descends from; arms are paired by it.
        arm: how it came to be (see ``arms``).
        step: the last thing that was done to it.
        requested: the speed-up asked of the pruning; None before pruning.
        base: the model that ``speedup`` and ``latency_speedup`` are measured against.
        speedup: MACs of the base over MACs of this model.
        score: the metrics and the mean loss on the test images.
        macs: multiply-accumulates of one input.
        params: number of trainable values.
        file_bytes: size of its file; None on a curve, where there is none.
        latency_ms: median time of one batch, None where it was not measured; 10th and 90th percentile beside it.
        latency_speedup: latency of the base over latency of this model.
        epochs: of finetuning, all told, before the pruning and after it.
        density: non-zero weights / weights, over all parameters of two dimensions or more; None on a curve.
        settings: what else has to be equal where arms are compared (see ``Descent``); not among its figures.
        further_macs: multiply-accumulates of inputs of other sizes, by their names.
        training_macs: what the model took to make since its base was trained (see ``spending``); None: not known.
        learnt_macs: what its methods have learnt before, once for all models; None: nothing, or not known.
    """

    name: str
    origin: str
    arm: Arm
    step: Step
    requested: float | None
    base: str
    speedup: float
    score: Score
    macs: int
    params: int
    file_bytes: int | None = None
    latency_ms: float | None = None
    latency_p10_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_speedup: float | None = None
    epochs: int = 0
    density: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    further_macs: Mapping[str, int] = field(default_factory=dict)
    training_macs: int | None = None
    learnt_macs: int | None = None

    @property
    def headline(self) -> float:
        """The value of the task's first metric."""
        return self.score.headline

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.score.loss

    def record(self) -> dict[str, Any]:
        """Plain values by name, each metric by its own."""
        found: dict[str, Any] = {}
        for one in fields(self):
            if one.name == "score":
                found |= {**self.score.values, "loss": self.score.loss, "samples": self.score.samples}
            elif one.name == "further_macs":
                found |= {f"macs_{name}": macs for name, macs in self.further_macs.items()}
            elif one.name != "settings":
                found[one.name] = getattr(self, one.name)
        return found


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (0 for one value) and extremes of some values."""

    mean: float
    std: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        found = list(values)
        std = statistics.stdev(found) if len(found) > 1 else 0.0
        return cls(statistics.fmean(found), std, min(found), max(found), len(found))

    @property
    def standard_error(self) -> float | None:
        """Of the mean: std / √count; None for one value, which says nothing about it."""
        return self.std / math.sqrt(self.count) if self.count > 1 else None


@dataclass(frozen=True)
class Group:
    """All models of one arm at one step and one requested speed-up."""

    arm: Arm
    step: Step
    requested: float | None
    rows: tuple[Row, ...]

    @cached_property
    def headline(self) -> Spread:
        """The headline over the group's models."""
        return self.spread("headline")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What was measured; the first is the headline."""
        return self.rows[0].score.metrics

    def spread(self, figure: str) -> Spread:
        """The spread of one numeric field of ``Row`` over the group's models."""
        return Spread.of(getattr(row, figure) for row in self.rows)

    def mean(self, figure: str) -> float | None:
        """The mean of one field or metric over the models that have it; None where none has."""
        values = [row.score.values.get(figure, getattr(row, figure, None)) for row in self.rows]
        present = [value for value in values if value is not None]
        return statistics.fmean(present) if present else None
