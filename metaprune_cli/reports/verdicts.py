"""What an evaluation comes to: a sentence for each speed-up, and every step of every arm side by side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from metaprune_cli.console.figures import count, millis, times
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.reports.report import difference_tables, spread_in_words
from metaprune_cli.reports.rows import Group
from metaprune_cli.reports.summary import Summary
from metaprune_cli.workflows.lineage import Step
from metaprune_cli.workflows.verdict import Verdict

SHORT: dict[Step, str] = {"pruned": "as pruned", "recalibrated": "recalibrated", "finetuned": "finetuned"}
"""A step as the heading of a column."""
NOISY = 2.0
"""Times the median, above which the 90th percentile of latencies says that the machine was busy with something else."""


def verdicts(summary: Summary) -> list[str]:
    """For each speed-up what the best arm comes to at the last step; none where nothing was pruned to a known one."""
    return list(_verdicts(summary)) if summary.steps else []


def _verdicts(summary: Summary) -> Iterator[str]:
    step, metric = summary.steps[0], summary.metric
    base = summary.group("unpruned", None, "plain")
    for requested in summary.speedups(step):
        groups = [found for arm in summary.arms if (found := summary.group(step, requested, arm)) is not None]
        best = max(groups, key=lambda group: metric.gain(0, group.headline.mean))
        words = Verdict(
            speedup=best.spread("speedup").mean,
            faster=None if base is not None and _noisy(base, best) else best.mean("latency_speedup"),
            batch=None,
            metric=metric,
            before=None if base is None else base.headline.mean,
            after=best.headline.mean,
            seconds=None,
        ).in_words()
        models = f", mean of {len(best.rows)} models" if len(best.rows) > 1 else ""
        yield words + models + (f"; best of {len(groups)} arms: {best.arm}" if len(groups) > 1 else "")


def _noisy(*groups: Group) -> bool:
    """Whether some model's time varied so much that a mean of ratios says nothing; the tables show the spread."""
    rows = [row for group in groups for row in group.rows]
    return any((row.latency_p90_ms or 0) > NOISY * (row.latency_ms or 0) for row in rows)


def page_tables(summary: Summary) -> list[Table]:
    """Every arm at every step, what was not finetuned beside what was; then the differences between arms."""
    if not summary.steps:
        return []
    return [_side_by_side(summary), *difference_tables(summary)]


def _side_by_side(summary: Summary) -> Table:
    steps, metric = summary.steps[::-1], summary.metric  # in the order they are done
    columns = (
        Column("requested", "Speed-up", times),
        label("arm", "Arm"),
        Column("models", "Models"),
        *(Column(step, _heading(step), partial(spread_in_words, metric=metric)) for step in steps),
        Column("speedup", "Achieved", times),
        Column("macs", "MACs", count),
        Column("params", "Params", count),
        Column("latency_ms", "Latency ms", millis),
        Column("latency_speedup", "Faster", times),
    )
    asked = sorted({speedup for step in steps for speedup in summary.speedups(step)})
    rows = [row for speedup in asked for arm in summary.arms if (row := _row(summary, speedup, arm)) is not None]
    return Table(f"{metric.title} on the test images", columns, rows)


def _heading(step: Step) -> str:
    name, _, epochs = step.partition("-")
    return SHORT[name] + (f", {epochs} epochs" if epochs else "")


def _row(summary: Summary, requested: float, arm: str) -> dict[str, Any] | None:
    """An arm at a speed-up: its headline at each step, what it costs after the last of them."""
    found: dict[Step, Group] = {
        step: group for step in summary.steps if (group := summary.group(step, requested, arm)) is not None
    }
    if not found:
        return None
    last = next(iter(found.values()))
    means = {name: last.mean(name) for name in ("speedup", "macs", "params", "latency_ms", "latency_speedup")}
    named = {"requested": requested, "arm": arm, "models": len(last.rows)}
    return named | means | {step: group.headline for step, group in found.items()}
