"""What many evaluated models say together: arms compared at equal speed-ups, paired by the model they came from."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Arm = Literal["plain", "uniform", "metanet"]
Step = Literal["unpruned", "pruned", "recalibrated", "finetuned"]

ARMS: tuple[Arm, ...] = ("plain", "uniform", "metanet")
BASELINES: tuple[Arm, ...] = ("plain", "uniform")  # what the metanetwork's arm is compared with
STEPS: tuple[Step, ...] = ("unpruned", "pruned", "recalibrated", "finetuned")
COMPARED: tuple[Step, ...] = ("finetuned", "recalibrated", "pruned")  # the result first


@dataclass(frozen=True)
class Row:
    """One evaluated model.

    Attributes:
        name: what the model is called: its file's stem, with the speed-up behind it on a curve.
        origin: the trained model it descends from; arms are paired by it.
        arm: "metanet" if a metanetwork rewrote the weights on the way; else "uniform" if every family lost the same
            fraction, "plain" if all units were ranked together or nothing was pruned.
        step: the last thing that was done to it.
        requested: the speed-up asked of the pruning; None before pruning.
        base: the model that ``speedup`` and ``latency_speedup`` are measured against.
        speedup: MACs of the base over MACs of this model.
        top1: percent of the test images; ``top5`` likewise.
        loss: mean cross-entropy over the test images.
        samples: how many test images there were.
        macs: multiply-accumulates of one input.
        params: number of trainable values.
        file_bytes: size of its file; None on a curve, where there is none.
        latency_ms: median time of one batch, None where it was not measured; 10th and 90th percentile beside it.
        latency_speedup: latency of the base over latency of this model.
    """

    name: str
    origin: str
    arm: Arm
    step: Step
    requested: float | None
    base: str
    speedup: float
    top1: float
    top5: float
    loss: float
    samples: int
    macs: int
    params: int
    file_bytes: int | None = None
    latency_ms: float | None = None
    latency_p10_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_speedup: float | None = None


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
    def top1(self) -> Spread:
        """Top-1 accuracy over the group's models, percent."""
        return self.spread("top1")

    def spread(self, figure: str) -> Spread:
        """The spread of one numeric field of ``Row`` over the group's models."""
        return Spread.of(getattr(row, figure) for row in self.rows)

    def mean(self, figure: str) -> float | None:
        """The mean of one field over the models that have it; None where none has."""
        values = [getattr(row, figure) for row in self.rows]
        present = [value for value in values if value is not None]
        return statistics.fmean(present) if present else None


@dataclass(frozen=True)
class Difference:
    """Top-1 of the metanetwork arm minus that of a baseline, model by model.

    Attributes:
        against: the baseline.
        top1: spread of the paired differences, percentage points.
        wins: in how many pairs the metanetwork arm is better; ``ties`` in how many equal.
    """

    step: Step
    requested: float
    against: Arm
    top1: Spread
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

    def differences_at(self, step: Step) -> list[Difference]:
        """The differences at this step."""
        return [difference for difference in self.differences if difference.step == step]

    def speedups(self, *steps: Step) -> list[float]:
        """The requested speed-ups met at any of these steps, ascending."""
        return sorted({g.requested for g in self.groups if g.step in steps and g.requested is not None})

    @property
    def arms(self) -> list[Arm]:
        """The arms that were met after pruning."""
        return [arm for arm in ARMS if any(g.arm == arm and g.step != "unpruned" for g in self.groups)]

    @property
    def steps(self) -> list[Step]:
        """The steps after pruning that were met, the last one first."""
        return [step for step in COMPARED if self.speedups(step)]


def summarise(rows: Iterable[Row]) -> Summary:
    """Group the rows and compare the arms."""
    found: dict[tuple[int, float, int], list[Row]] = defaultdict(list)
    for row in rows:
        found[STEPS.index(row.step), row.requested or 0.0, ARMS.index(row.arm)].append(row)
    groups = tuple(
        Group(members[0].arm, members[0].step, members[0].requested, tuple(members))
        for _, members in sorted(found.items())
    )
    return Summary(groups, tuple(_differences(groups)))


def headline(summary: Summary) -> dict[str, Any]:
    """The few numbers of ``dvc metrics``, mean top-1 at the last step: ``{arm | "metanet_minus_ARM": {"3x": …}}``."""
    found: dict[str, Any] = {"unpruned": summary.groups[0].top1.mean} if summary.groups[0].step == "unpruned" else {}
    step = next((step for step in COMPARED if summary.speedups(step)), None)
    for name, figures in metrics(summary).get(str(step), {}).items():
        found[name] = {label: group["top1"] for label, group in figures.items()}
    return found


def metrics(summary: Summary) -> dict[str, Any]:
    """All of the summary: ``{step: {arm | "metanet_minus_ARM": {"3x": {"top1": …}}}}``."""
    document: dict[str, Any] = {}
    for group in summary.groups:
        arm = document.setdefault(group.step, {}).setdefault(group.arm, {})
        figures = _figures(group)
        if group.requested is None:
            arm.update(figures)
        else:
            arm[speedup_label(group.requested)] = figures
    for difference in summary.differences:
        paired = document[difference.step].setdefault(f"metanet_minus_{difference.against}", {})
        paired[speedup_label(difference.requested)] = _figures_of_pairs(difference)
    return document


def curve(summary: Summary, step: Step) -> list[dict[str, float | None]]:
    """The mean top-1 of each arm at this step, a record per requested speed-up: ``speedup`` and a key for each arm."""
    records = []
    for requested in summary.speedups(step):
        record: dict[str, float | None] = {"speedup": requested}
        for arm in ARMS:
            group = summary.group(step, requested, arm)
            record[arm] = None if group is None else group.top1.mean
        records.append(record)
    return records


def speedup_label(requested: float) -> str:
    """A requested speed-up as a key: ``3x``, ``2.5x``."""
    return f"{requested:g}x"


def _figures(group: Group) -> dict[str, float]:
    figures = {"top1": group.top1.mean, "top1_std": group.top1.std, "models": group.top1.count}
    means = {name: group.mean(name) for name in ("top5", "loss", "speedup", "macs", "params", "latency_ms")}
    return figures | {name: value for name, value in means.items() if value is not None}


def _figures_of_pairs(difference: Difference) -> dict[str, float]:
    top1 = difference.top1
    figures = {"top1": top1.mean, "top1_std": top1.std, "wins": difference.wins, "pairs": top1.count}
    return figures if top1.standard_error is None else figures | {"top1_se": top1.standard_error}


def _differences(groups: Sequence[Group]) -> Iterator[Difference]:
    by_key = {(group.step, group.requested, group.arm): group for group in groups}
    for baseline in groups:
        metanet = by_key.get((baseline.step, baseline.requested, "metanet"))
        if baseline.arm not in BASELINES or baseline.requested is None or metanet is None:
            continue
        theirs, ours = _top1_by_origin(baseline), _top1_by_origin(metanet)
        pairs = [ours[origin] - theirs[origin] for origin in sorted(theirs.keys() & ours.keys())]
        if pairs:
            wins, ties = sum(pair > 0 for pair in pairs), sum(pair == 0 for pair in pairs)
            yield Difference(baseline.step, baseline.requested, baseline.arm, Spread.of(pairs), wins, ties)


def _top1_by_origin(group: Group) -> Mapping[str, float]:
    """Mean top-1 of each origin's models: several files may descend from one."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in group.rows:
        found[row.origin].append(row.top1)
    return {origin: statistics.fmean(values) for origin, values in found.items()}
