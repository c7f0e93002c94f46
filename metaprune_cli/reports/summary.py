"""What many evaluated models say together: arms compared at equal speed-ups, paired by the model they came from."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from metaprune_cli.tasks import Metric, Score
from metaprune_cli.workflows.arms import ARMS, REPAIRED, Arm, apart_from_ranking, is_metanet, place
from metaprune_cli.workflows.lineage import STEPS, Step


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
        for field in fields(self):
            if field.name == "score":
                found |= {**self.score.values, "loss": self.score.loss, "samples": self.score.samples}
            else:
                found[field.name] = getattr(self, field.name)
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


@dataclass(frozen=True)
class Difference:
    """The headline of an arm with a metanetwork minus that of a baseline, model by model.

    Attributes:
        arm: the one with a metanetwork.
        against: the baseline.
        headline: spread of the paired differences; of accuracies percentage points.
        wins: in how many pairs the metanetwork arm is better; ``ties`` in how many equal.
    """

    step: Step
    requested: float
    arm: Arm
    against: Arm
    headline: Spread
    wins: int
    ties: int


@dataclass(frozen=True)
class Summary:
    """Groups and differences, both ordered by step, then speed-up, then arm."""

    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]

    def group(self, step: Step, requested: float | None, arm: Arm) -> Group | None:
        """The group with this key, if there is one."""
        return next((g for g in self.groups if (g.step, g.requested, g.arm) == (step, requested, arm)), None)

    @property
    def metric(self) -> Metric:
        """The headline that models are compared by."""
        return self.groups[0].metrics[0]

    def differences_at(self, step: Step) -> list[Difference]:
        """The differences at this step."""
        return [difference for difference in self.differences if difference.step == step]

    def speedups(self, *steps: Step) -> list[float]:
        """The requested speed-ups met at any of these steps, ascending."""
        return sorted({g.requested for g in self.groups if g.step in steps and g.requested is not None})

    @property
    def arms(self) -> list[Arm]:
        """The arms that were met after pruning."""
        return sorted({g.arm for g in self.groups if g.step != "unpruned"}, key=place)

    @property
    def steps(self) -> list[Step]:
        """The steps after pruning that were met, the last one first."""
        return sorted({g.step for g in self.groups if g.step != "unpruned"}, key=step_place, reverse=True)


def summarise(rows: Iterable[Row]) -> Summary:
    """Group the rows and compare the arms."""
    rows = list(rows)
    several = len({row.epochs for row in rows if row.step == "finetuned"}) > 1
    found: dict[tuple[Step, float | None, Arm], list[Row]] = defaultdict(list)
    for row in rows:
        step = f"finetuned-{row.epochs}" if several and row.step == "finetuned" else row.step
        found[step, row.requested, row.arm].append(row)
    keys = sorted(found, key=lambda key: (step_place(key[0]), key[1] or 0.0, place(key[2])))
    groups = tuple(Group(arm, step, requested, tuple(found[step, requested, arm])) for step, requested, arm in keys)
    return Summary(groups, tuple(_differences(groups)))


def step_place(step: Step) -> tuple[int, int]:
    """The key that steps are sorted by: the order in which they are done."""
    name, _, epochs = step.partition("-")
    return STEPS.index(name), int(epochs or 0)


def headline(summary: Summary) -> dict[str, Any]:
    """The few numbers of ``dvc metrics``, mean headlines of the last step: ``{arm | "ARM_minus_ARM": {"3x": …}}``."""
    found: dict[str, Any] = (
        {"unpruned": summary.groups[0].headline.mean} if summary.groups[0].step == "unpruned" else {}
    )
    step = next(iter(summary.steps), None)
    for name, figures in metrics(summary).get(str(step), {}).items():
        found[name] = {label: group[summary.metric.key] for label, group in figures.items()}
    return found


def metrics(summary: Summary) -> dict[str, Any]:
    """All of the summary: ``{step: {arm | "ARM_minus_ARM": {"3x": {METRIC: …}}}}``."""
    document: dict[str, Any] = {}
    for group in summary.groups:
        arm = document.setdefault(group.step, {}).setdefault(group.arm, {})
        figures = _figures(group)
        if group.requested is None:
            arm.update(figures)
        else:
            arm[speedup_label(group.requested)] = figures
    for difference in summary.differences:
        paired = document[difference.step].setdefault(f"{difference.arm}_minus_{difference.against}", {})
        paired[speedup_label(difference.requested)] = _figures_of_pairs(difference, summary.metric.key)
    return document


def curve(summary: Summary, step: Step) -> list[dict[str, float | None]]:
    """The mean headline of each arm at this step, a record per requested speed-up: ``speedup`` and a key for each arm.

    The pipeline's three arms are always there.
    """
    arms = sorted({*ARMS, *summary.arms}, key=place)
    records = []
    for requested in summary.speedups(step):
        record: dict[str, float | None] = {"speedup": requested}
        for arm in arms:
            group = summary.group(step, requested, arm)
            record[arm] = None if group is None else group.headline.mean
        records.append(record)
    return records


def speedup_label(requested: float) -> str:
    """A requested speed-up as a key: ``3x``, ``2.5x``."""
    return f"{requested:g}x"


def _figures(group: Group) -> dict[str, float]:
    (first, *others), found = (metric.key for metric in group.metrics), group.headline
    figures = {first: found.mean, f"{first}_std": found.std, "models": found.count}
    further = (*others, "loss", "speedup", "macs", "params", "latency_ms", "density")
    means = {name: group.mean(name) for name in further}
    return figures | {name: value for name, value in means.items() if value is not None}


def _figures_of_pairs(difference: Difference, key: str) -> dict[str, float]:
    found = difference.headline
    figures = {key: found.mean, f"{key}_std": found.std, "wins": difference.wins, "pairs": found.count}
    return figures if found.standard_error is None else figures | {f"{key}_se": found.standard_error}


def _differences(groups: Sequence[Group]) -> Iterator[Difference]:
    for ours, theirs in itertools.product(groups, groups):
        alike = (ours.step, ours.requested) == (theirs.step, theirs.requested)
        if ours.requested is None or not alike or not is_metanet(ours.arm) or is_metanet(theirs.arm):
            continue
        if apart_from_ranking(ours.arm) != apart_from_ranking(theirs.arm):
            continue
        mine, other = _headline_by_origin(ours), _headline_by_origin(theirs)
        pairs = [mine[origin] - other[origin] for origin in sorted(mine.keys() & other.keys())]
        if pairs:
            gains = [ours.metrics[0].gain(0, pair) for pair in pairs]
            wins, ties = sum(gain > 0 for gain in gains), sum(gain == 0 for gain in gains)
            yield Difference(ours.step, ours.requested, ours.arm, theirs.arm, Spread.of(pairs), wins, ties)


def _headline_by_origin(group: Group) -> Mapping[str, float]:
    """The mean headline of each origin's models: several files may descend from one."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in group.rows:
        found[row.origin].append(row.headline)
    return {origin: statistics.fmean(values) for origin, values in found.items()}


def common_repair(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Rows of which all or none are repaired: what is common to all goes without saying, but for a condition.

    Returns:
        The rows, and the condition in words, by label; rows of both kinds are left as they are.
    """
    pruned = [row for row in rows if row.requested is not None]
    if not pruned or not all(row.arm.endswith(f" {REPAIRED}") for row in pruned):
        return list(rows), {}
    named = [replace(row, arm=row.arm.removesuffix(f" {REPAIRED}")) for row in rows]
    return named, {
        "Repaired": "every model that was pruned beforehand was fitted, without training, to what the whole one did"
    }
