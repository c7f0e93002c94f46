"""The report's folder: its files have fixed names, so that scripts and DVC find them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from metaprune_cli.console.sheet import csv_text
from metaprune_cli.errors import InputError
from metaprune_cli.places import unwritable
from metaprune_cli.reports.picture import draw
from metaprune_cli.reports.report import markdown
from metaprune_cli.reports.rows import Row
from metaprune_cli.reports.summary import Summary, curve, headline, metrics
from metaprune_cli.workflows.arms import pipeline_arms, place
from metaprune_cli.workflows.lineage import STEPS
from metaprune_cli.workflows.paths import replace_file

PICTURE = "curve.png"
FIXED = (PICTURE, "report.md", "metrics.json", "summary.json", "models.csv")


def check_folder(folder: Path | None) -> None:
    """Make sure, before anything is measured, that a report can be written into ``folder``.

    Raises:
        InputError: it is a file, or cannot be made or written.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(
            "The report needs a folder.", expected="a folder", got="a file", where=folder, next_step="-o FOLDER"
        )
    problems = {name: reason for name in FIXED if (reason := unwritable(folder / name))}
    if problems:
        reasons = (
            dict.fromkeys(problems.values())
            if len(problems) == len(FIXED)
            else [f"{n} {r}" for n, r in problems.items()]
        )
        raise InputError(
            "The report cannot be written.",
            got="; ".join(reasons),
            where=folder,
            next_step="choose another place with -o",
        )


def write_report(folder: Path, rows: Sequence[Row], summary: Summary, setting: Mapping[str, str]) -> tuple[Path, ...]:
    """Write report.md, curve.png, summary.json, its headline metrics.json, models.csv and a curve-STEP.csv a step."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "metrics.json": json.dumps(headline(summary), indent=2) + "\n",
        "summary.json": json.dumps(metrics(summary), indent=2) + "\n",
        "models.csv": csv_text([row.record() for row in rows], list(rows[0].record())),
        "report.md": markdown(rows, summary, setting, PICTURE),
    }
    arms = sorted({*pipeline_arms(), *summary.arms}, key=place)
    steps = {*STEPS[1:], *summary.steps}
    texts |= {f"curve-{step}.csv": csv_text(curve(summary, step), ("speedup", *arms)) for step in sorted(steps)}
    for name, text in texts.items():
        replace_file(folder / name, lambda part, text=text: part.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    replace_file(folder / PICTURE, lambda part: draw(rows, summary, part))
    return tuple(folder / name for name in (*texts, PICTURE))
