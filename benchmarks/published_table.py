"""Tables and plots of ``benchmarks/published.py``: whatever is in the file of results, and what is not."""

from __future__ import annotations

import json
import re
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaprune_cli.reports.png import picture

Row = dict[str, Any]
Figures = dict[tuple[str, float], list[float]]
"""Test top-1 of every seed, by arm and speed-up."""
BFLOAT16 = "†"
"""Marks what was trained in bfloat16."""
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
TITLES = {
    "bn": "before training, BatchNorm measured anew",
    "ls": "before training, repaired by least squares",
}


def write_tables(results: Path, output: Path, planned: Mapping[tuple[str, str], int]) -> None:
    """The tables into README.md, between their marks, and a picture of every network and stage.

    Args:
        results: the file of results.
        output: the folder.
        planned: how many cells there are to be of each network and stage.
    """
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    wholes = {row["network"]: row["test_top1"] for row in rows if row["arm"] == "whole"}
    found: dict[tuple[str, str], Figures] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["arm"] != "whole":
            found[row["network"], row["stage"]][row["arm"], row["speedup"]].append(row["test_top1"])
    bfloat16 = {_key(row) for row in rows if row["protocol"]["precision"] == "bfloat16" and row["stage"].isdigit()}
    parts, order = [], sorted(found, key=_order)
    for network, stage in order:
        figures = found[network, stage]
        marked = {(arm, speedup) for name, at, arm, speedup in bfloat16 if (name, at) == (network, stage)}
        parts.append(f"### {network}, {_title(stage)}\n\n" + "\n".join(_table(figures, wholes.get(network), marked)))
        name = f"{network}-{stage}.png"
        if len({speedup for _, speedup in figures}) > 1:
            _plot(figures, wholes.get(network), f"{network}, {_title(stage)}", output / name)
            parts.append(f"![test top-1 over the speed-up]({name})")
    measured = {key: sum(map(len, figures.values())) for key, figures in found.items()}
    put_tables("\n\n".join([*parts, "\n".join(_missing(measured, planned))]), output / "README.md")


def _key(row: Row) -> tuple[str, str, str, float]:
    return row["network"], row["stage"], row["arm"], row["speedup"]


def _missing(measured: Mapping[tuple[str, str], int], planned: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """How many cells of each network and stage there are, of one seed."""
    stages = sorted({stage for _, stage in planned}, key=lambda stage: _order(("", stage)))
    yield "### What has been run\n"
    yield "| cells | " + " | ".join(map(_title, stages)) + " |"
    yield "|---|" + "--:|" * len(stages)
    for network in sorted({network for network, _ in planned}):
        counts = [f"{measured.get((network, stage), 0)} of {planned[network, stage]}" for stage in stages]
        yield f"| {network} | " + " | ".join(counts) + " |"


def _order(key: tuple[str, str]) -> tuple[str, int]:
    network, stage = key
    return network, int(stage) if stage.isdigit() else ("bn", "ls").index(stage) - 2


def _title(stage: str) -> str:
    return TITLES.get(stage, f"{stage} epochs in all")


def _table(figures: Figures, whole: float | None, marked: Collection[tuple[str, float]]) -> Iterator[str]:
    """A row an arm, the best first, a column a speed-up; the best of a column is bold, what was not run is a dash."""
    speedups = sorted({speedup for _, speedup in figures})
    means = {key: statistics.mean(values) for key, values in figures.items()}
    yield "| test top-1 | " + " | ".join(f"{speedup:g}×" for speedup in speedups) + " |"
    yield "|---|" + "--:|" * len(speedups)
    if whole is not None:
        yield "| whole | " + " | ".join([f"{whole:.2f}"] * len(speedups)) + " |"
    best = {speedup: max(mean for (_, at), mean in means.items() if at == speedup) for speedup in speedups}
    for arm in _arms(figures):
        marks = [BFLOAT16 if (arm, speedup) in marked else "" for speedup in speedups]
        cells = [_shown(figures.get((arm, speedup), []), best[speedup]) for speedup in speedups]
        shown = [cell + mark for cell, mark in zip(cells, marks, strict=True)]
        yield f"| {arm} | " + " | ".join(shown) + " |"


def _arms(figures: Figures) -> list[str]:
    """The best first, by the speed-ups at which all of them were measured."""
    arms = dict.fromkeys(arm for arm, _ in figures)
    common = [at for at in {speedup for _, speedup in figures} if all((arm, at) in figures for arm in arms)]
    return sorted(arms, key=lambda arm: -sum(statistics.mean(figures[arm, speedup]) for speedup in common))


def _shown(values: Sequence[float], best: float) -> str:
    if not values:
        return "—"
    mean = statistics.mean(values)
    text = f"**{mean:.2f}**" if mean == best else f"{mean:.2f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values) / len(values) ** 0.5:.2f} ({len(values)})"
    return text


def _plot(figures: Figures, whole: float | None, title: str, path: Path) -> None:
    with picture(path, 7, 4.5) as figure:
        axes = figure.add_subplot()
        for arm in _arms(figures):
            points = sorted(
                (speedup, statistics.mean(values)) for (name, speedup), values in figures.items() if name == arm
            )
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=arm)
        if whole is not None:
            axes.axhline(whole, color="gray", linestyle=":", label="whole")
        axes.set(title=title, xlabel="speed-up (MACs before / MACs after)", ylabel="test top-1, %")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)


def put_tables(tables: str, readme: Path) -> None:
    """Between their marks, which a new file has alone."""
    readme.parent.mkdir(parents=True, exist_ok=True)
    text = readme.read_text() if readme.exists() else f"{BEGIN}\n{END}\n"
    inside = f"{BEGIN}\n\n{tables}\n\n{END}"
    readme.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: inside, text, flags=re.DOTALL))
