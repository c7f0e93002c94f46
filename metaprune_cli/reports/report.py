"""An evaluation as tables, Markdown and CSV: the same rows for the terminal, for people to keep, and for DVC."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from metaprune_cli.console.figures import count, millis, share, times
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.console.text import markdown as shown
from metaprune_cli.methods.registry import methods
from metaprune_cli.reports.pairs import Difference, Unequal
from metaprune_cli.reports.rows import Row, Spread
from metaprune_cli.reports.summary import Summary
from metaprune_cli.tasks import Metric
from metaprune_cli.workflows.arms import Arm, explained, methods_of, nouns
from metaprune_cli.workflows.lineage import Step

TITLES: dict[Step, str] = {
    "unpruned": "before pruning",
    "pruned": "as pruned, not finetuned",
    "recalibrated": "pruned, BatchNorm recalibrated, not finetuned",
    "finetuned": "pruned and finetuned",
}


SPREAD = (
    "± is the sample standard deviation over models. Differences are paired by base model; their standard error is "
    "that of the mean."
)
EXPLANATION = (
    f"{SPREAD} Training MACs are what it took to make one model since its base was trained, in multiply-adds: three "
    "forward passes for every image of an epoch, one for every image on which a search evaluates a candidate. They do "
    "not include repairs, or what a method learned once for all models, which is listed separately."
)
MEANS = ("speedup", "macs", "params", "density", "latency_ms", "training_macs")
"""The figures of a group of models that are shown as means."""


DENSITY = Column("density", "Density", share, minor=True)
DENSE = 0.995
"""Density from which on there is no column of it: a few weights are zero in any model."""


def title(step: Step) -> str:
    """A step in words."""
    name, _, epochs = step.partition("-")
    return TITLES[name] + (f", {epochs} epochs in all" if epochs else "")


def spread_in_words(value: Spread, metric: Metric) -> str:
    """The mean, and of several models the deviation."""
    deviation = f" ± {metric.write(value.std)}" if value.count > 1 else ""
    return f"{metric.write(value.mean)}{deviation}"


def _gain(value: Spread, metric: Metric) -> str:
    return ("+" if math.copysign(1, value.mean) > 0 else "") + spread_in_words(value, metric)


def _written(value: Spread, metric: Metric) -> str:
    return f"{spread_in_words(value, metric)} {metric.unit}".rstrip()


def summary_columns(metric: Metric, *, sparse: bool) -> tuple[Column, ...]:
    """What is shown of a group of models; of ``sparse`` ones the density too."""
    return (
        Column("requested", "Speed-up", times),
        label("arm", "Arm"),
        Column("models", "Models"),
        Column("headline", metric.title, partial(spread_in_words, metric=metric)),
        Column("speedup", "Achieved", times),
        Column("macs", "MACs", count),
        Column("params", "Params", count),
        *((DENSITY,) if sparse else ()),
        Column("latency_ms", "Latency ms", millis),
        Column("training_macs", "Training MACs", count),
    )


def difference_columns(metric: Metric) -> tuple[Column, ...]:
    """What is shown of the difference between two arms."""
    title = ", ".join(filter(None, (metric.label, metric.difference_unit)))
    return (
        Column("requested", "Speed-up", times),
        label("arm", "Arm"),
        label("against", "Minus"),
        Column("pairs", "Pairs"),
        Column("headline", title, partial(_gain, metric=metric)),
        Column("standard_error", "Standard error", metric.write),
        Column("wins", "Better in"),
        Column("ties", "Equal in"),
    )


def model_columns(metrics: Sequence[Metric], sizes: Sequence[str] = (), *, sparse: bool = True) -> tuple[Column, ...]:
    """What is shown of a model; ``sizes`` are those for which MACs were counted beside the example's."""
    return (
        label("name", "Model"),
        label("arm", "Arm"),
        label("step", "Step", minor=True),
        *(Column(one.key, one.title, one.write, minor=place > 0) for place, one in enumerate(metrics)),
        Column("loss", "Loss", minor=True),
        Column("speedup", "Speed-up", times),
        Column("macs", "MACs", count),
        *(Column(f"macs_{size}", f"MACs {size}", count) for size in sizes),
        Column("params", "Params", count, minor=True),
        *((DENSITY,) if sparse else ()),
        Column("file_bytes", "Bytes", count, minor=True),
        Column("latency_ms", "Latency ms", millis, minor=True),
        label("latency_spread", "p10–p90", minor=True),
        Column("latency_speedup", "Faster", times),
    )


def summary_tables(summary: Summary) -> list[Table]:
    """For each step after pruning, the final one first: a row per speed-up and arm, then one per difference."""
    tables: list[Table] = []
    if not summary.steps:
        return tables
    columns = summary_columns(summary.metric, sparse=_sparse([row for one in summary.groups for row in one.rows]))
    for step in summary.steps:
        heading = f"{summary.metric.label} on the test images: {title(step)}"
        tables.append(Table(heading, columns, _summary_rows(summary, step)))
        tables.extend(_difference_table(summary, step))
    return tables


def difference_tables(summary: Summary) -> list[Table]:
    """For each step after pruning, the final one first: a row for each two arms that are compared."""
    return [table for step in summary.steps for table in _difference_table(summary, step)]


def _difference_table(summary: Summary, step: Step) -> list[Table]:
    rows = _difference_rows(summary, step)
    heading = f"{_comparison(summary.differences_at(step))}: {title(step)}" if rows else ""
    return [Table(heading, difference_columns(summary.metric), rows)] if rows else []


def _sparse(rows: Sequence[Row]) -> bool:
    """Whether any model has weights that are zero, but for a few."""
    return any(row.density is not None and row.density < DENSE for row in rows)


def _comparison(differences: Sequence[Difference]) -> str:
    """What the differences are of."""
    having = [method for one in differences for method in methods_of(one.arm)]
    if all(methods_of(one.arm) and not methods_of(one.against) for one in differences):
        return f"Gain from the {nouns(having)}"
    return "Differences between arms"


def unequal_lines(summary: Summary) -> list[str]:
    """Which arms are not compared, and which settings differ, in a sentence each."""
    return [_unequal(found) for found in summary.unequal]


def learnt_lines(summary: Summary) -> list[str]:
    """What methods have learnt once for all models, and from how many models on that is less than another arm's cost.

    Compared are the mean costs of a model over all speed-ups, after the last step.
    """
    groups = [group for group in summary.groups if group.step == next(iter(summary.steps), None)]
    costs = {arm: _mean(group.mean("training_macs") for group in groups if group.arm == arm) for arm in summary.arms}
    lines = []
    for arm in summary.arms:
        once = _mean(group.mean("learnt_macs") for group in groups if group.arm == arm)
        own = costs[arm]
        if once is None or own is None:
            continue
        dearer = {other: cost - own for other, cost in costs.items() if cost is not None and cost > own}
        pays = ", ".join(f"{math.ceil(once / more)} beside {other}" for other, more in dearer.items())
        lines.append(
            f"{arm}: {count(once)} multiply-adds once for all models"
            + (
                f"; less in all from so many models on: {pays}."
                if pays
                else "; no other arm costs more for each model."
            )
        )
    return lines


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _unequal(found: Unequal) -> str:
    settings = ", ".join(f"{name} {ours} and {theirs}" for name, ours, theirs in found.settings)
    asked = ", ".join(map(times, found.speedups))
    return (
        f"Not compared: {found.arm} minus {found.against} at {asked}, {TITLES[found.step]} "
        f"(models: {found.models}); their settings differ: {settings}."
    )


def models_table(rows: Sequence[Row]) -> Table:
    """One row per model, in the order given."""
    metrics = rows[0].score.metrics if rows else ()
    sizes = list(rows[0].further_macs) if rows else ()
    columns = model_columns(metrics, sizes, sparse=_sparse(rows))
    return Table("All models", columns, [_model_row(row) for row in rows])


def markdown(rows: Sequence[Row], summary: Summary, setting: Mapping[str, Any], picture: str | None = None) -> str:
    """The report: what was measured how, the arms compared, then every model.

    Args:
        rows: every evaluated model.
        summary: the same, grouped.
        setting: what to say about the conditions, by label.
        picture: file name of the picture beside the report, if there is one.
    """
    parts = [
        "# Evaluation\n",
        "\n".join(f"- {shown(name)}: {shown(str(value))}" for name, value in setting.items()) + "\n",
    ]
    if unpruned := unpruned_lines(summary):
        parts.append("\n".join(unpruned) + "\n")
    if summary.steps:
        parts.append("\n".join(f"- **{shown(arm)}**: {shown(explained(arm))}." for arm in summary.arms) + "\n")
    parts.extend(table.markdown() for table in summary_tables(summary))
    if summary.steps:
        parts.append(f"{EXPLANATION}\n")
    if lines := learnt_lines(summary):
        parts.append("\n".join(f"- {shown(line)}" for line in lines) + "\n")
    if summary.unequal:
        parts.append("\n".join(f"- {shown(line)}" for line in unequal_lines(summary)) + "\n")
    if picture is not None:
        parts.append(f"![{against(rows)}]({picture})\n")
    parts.append(models_table(rows).markdown())
    return "\n".join(parts)


def against(rows: Sequence[Row]) -> str:
    """What a picture shows: ``Accuracy against speed-up``."""
    metric = rows[0].score.metric
    return f"{metric.quantity or metric.label} against speed-up"


def _summary_rows(summary: Summary, step: Step) -> list[dict[str, Any]]:
    rows = []
    for requested in summary.speedups(step):
        for arm in summary.arms:
            group = summary.group(step, requested, arm)
            if group is None:
                continue
            means = {name: group.mean(name) for name in MEANS}
            named = {"requested": requested, "arm": arm, "models": len(group.rows)}
            rows.append(named | {"headline": group.headline} | means)
    return rows


def _difference_rows(summary: Summary, step: Step) -> list[dict[str, Any]]:
    return [
        {
            "requested": difference.requested,
            "arm": difference.arm,
            "against": difference.against,
            "pairs": difference.headline.count,
            "headline": difference.headline,
            "standard_error": difference.headline.standard_error,
            "wins": difference.wins,
            "ties": difference.ties,
        }
        for difference in summary.differences_at(step)
    ]


def _model_row(row: Row) -> dict[str, Any]:
    spread = None
    if row.latency_p10_ms is not None and row.latency_p90_ms is not None:
        spread = f"{millis(row.latency_p10_ms)}–{millis(row.latency_p90_ms)}"
    return row.record() | {"latency_spread": spread}


def unpruned_lines(summary: Summary) -> list[str]:
    """The models before pruning, in a sentence for each kind."""
    names: dict[Arm, str] = {"plain": "Before pruning"}
    names |= {method.name: f"{method.done[:1].upper()}{method.done[1:]}, before pruning" for method in methods()}
    groups = [group for arm in names if (group := summary.group("unpruned", None, arm)) is not None]
    return [
        f"{names[group.arm]} (models: {len(group.rows)}): {metric.name} {_written(group.headline, metric)}, "
        f"{count(group.mean('macs') or 0)} MACs, {count(group.mean('params') or 0)} parameters."
        for group in groups
        for metric in group.metrics[:1]
    ]
