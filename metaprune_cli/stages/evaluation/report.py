"""An evaluation as tables, Markdown and CSV: the same rows for the terminal, for people to keep, and for DVC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from metaprune_cli.console.figures import count, millis, percent, share, times
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.console.text import markdown as shown
from metaprune_cli.stages.evaluation.arms import METANET, Arm, explained
from metaprune_cli.stages.evaluation.summary import Row, Spread, Step, Summary

TITLES: dict[Step, str] = {
    "unpruned": "before pruning",
    "pruned": "as pruned, not finetuned",
    "recalibrated": "pruned, BatchNorm recalibrated, not finetuned",
    "finetuned": "pruned and finetuned",
}


EXPLANATION = (
    "± is the sample standard deviation over models. Gains are paired by the model of origin, the standard error is "
    "that of their mean."
)


def title(step: Step) -> str:
    """A step in words."""
    name, _, epochs = step.partition("-")
    return TITLES[name] + (f", {epochs} epochs in all" if epochs else "")


def _spread(value: Spread) -> str:
    return f"{value.mean:.2f} ± {value.std:.2f}" if value.count > 1 else f"{value.mean:.2f}"


def _gain(value: Spread) -> str:
    return f"{value.mean:+.2f} ± {value.std:.2f}" if value.count > 1 else f"{value.mean:+.2f}"


SUMMARY_COLUMNS = (
    Column("requested", "Speed-up", times),
    label("arm", "Arm"),
    Column("models", "Models"),
    Column("top1", "Top-1 %", _spread),
    Column("speedup", "Achieved", times),
    Column("macs", "MACs", count),
    Column("params", "Params", count),
    Column("density", "Density", share),
    Column("latency_ms", "Latency ms", millis),
)

DIFFERENCE_COLUMNS = (
    Column("requested", "Speed-up", times),
    label("arm", "Arm"),
    label("against", "Minus"),
    Column("pairs", "Pairs"),
    Column("top1", "Top-1, points", _gain),
    Column("standard_error", "Standard error", percent),
    Column("wins", "Better in"),
    Column("ties", "Equal in"),
)

MODEL_COLUMNS = (
    label("name", "Model"),
    label("arm", "Arm"),
    label("step", "Step"),
    Column("top1", "Top-1 %", percent),
    Column("top5", "Top-5 %", percent),
    Column("loss", "Loss"),
    Column("speedup", "Speed-up", times),
    Column("macs", "MACs", count),
    Column("params", "Params", count),
    Column("density", "Density", share),
    Column("file_bytes", "Bytes", count),
    Column("latency_ms", "Latency ms", millis),
    label("latency_spread", "p10–p90"),
    Column("latency_speedup", "Faster", times),
)


def summary_tables(summary: Summary) -> list[Table]:
    """For each step after pruning, the final one first: a row per speed-up and arm, then one per difference."""
    tables = []
    for step in summary.steps:
        tables.append(Table(f"Top-1 on the test images: {title(step)}", SUMMARY_COLUMNS, _summary_rows(summary, step)))
        if rows := _difference_rows(summary, step):
            tables.append(Table(f"Gain by the metanetwork: {title(step)}", DIFFERENCE_COLUMNS, rows))
    return tables


def models_table(rows: Sequence[Row]) -> Table:
    """One row per model, in the order given."""
    return Table("Every model", MODEL_COLUMNS, [_model_row(row) for row in rows])


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
    if picture is not None:
        parts.append(f"![Accuracy against speed-up]({picture})\n")
    parts.append(models_table(rows).markdown())
    return "\n".join(parts)


def _summary_rows(summary: Summary, step: Step) -> list[dict[str, Any]]:
    rows = []
    for requested in summary.speedups(step):
        for arm in summary.arms:
            group = summary.group(step, requested, arm)
            if group is None:
                continue
            means = {name: group.mean(name) for name in ("speedup", "macs", "params", "density", "latency_ms")}
            named = {"requested": requested, "arm": arm, "models": len(group.rows)}
            rows.append(named | {"top1": group.top1} | means)
    return rows


def _difference_rows(summary: Summary, step: Step) -> list[dict[str, Any]]:
    return [
        {
            "requested": difference.requested,
            "arm": difference.arm,
            "against": difference.against,
            "pairs": difference.top1.count,
            "top1": difference.top1,
            "standard_error": difference.top1.standard_error,
            "wins": difference.wins,
            "ties": difference.ties,
        }
        for difference in summary.differences_at(step)
    ]


def _model_row(row: Row) -> dict[str, Any]:
    spread = None
    if row.latency_p10_ms is not None and row.latency_p90_ms is not None:
        spread = f"{millis(row.latency_p10_ms)}–{millis(row.latency_p90_ms)}"
    return asdict(row) | {"latency_spread": spread}


def unpruned_lines(summary: Summary) -> list[str]:
    """The models before pruning, in a sentence for each kind."""
    names: dict[Arm, str] = {
        "plain": "Before pruning",
        METANET: "Rewritten by the metanetwork, before pruning",
    }
    groups = [group for arm in names if (group := summary.group("unpruned", None, arm)) is not None]
    return [
        f"{names[group.arm]} (models: {len(group.rows)}): top-1 {_spread(group.top1)} %, "
        f"{count(group.mean('macs') or 0)} MACs, {count(group.mean('params') or 0)} parameters."
        for group in groups
    ]
