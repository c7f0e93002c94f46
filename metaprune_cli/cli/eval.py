"""``metaprune eval``: models measured on the test images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import EvalSettings, PruneSettings
from metaprune_cli.config.flags import CURVE, MEASURING, OUTPUT
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening

Report = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Folder for report.md, curve.png, JSON and CSV files.",
        rich_help_panel=OUTPUT,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write one HTML page with tables, curves and layer widths.",
        rich_help_panel=OUTPUT,
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="What speed-ups are relative to: a file, or a folder that contains each model's own "
        "base. Default: the model each was made from, if it is given too or is in the same "
        "folder; otherwise the first model.",
        rich_help_panel=MEASURING,
    ),
]
Curve = Annotated[
    bool,
    typer.Option(
        "--curve",
        help="Also prune each unpruned model to a series of speed-ups, without finetuning.",
        rich_help_panel=CURVE,
    ),
]


@guarded
@unfolded
def evaluate(
    models: options.Models,
    output: Report = None,
    report: Page = None,
    base: Base = None,
    curve: Curve = False,
    *,
    settings: Annotated[EvalSettings, Section("eval")],
    pruning: Annotated[PruneSettings, Section("prune", only={})],
    speedup: list[float] | None = None,
    data: options.TestData,
    model_file: options.ModelFile,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure accuracy (or the task's metrics) on test images, MACs, parameters, file size and latency."""
    source = model_file.source()
    from metaprune_cli.reports.report import models_table, summary_tables, unequal_lines
    from metaprune_cli.stages import eval as stage
    from metaprune_cli.workflows.device import pick_device

    with listening(quiet) as progress:
        found = stage.evaluate(
            models,
            output,
            settings,
            base=base,
            pruning=pruning if curve or speedup else None,
            source=source,
            data=data,
            device=pick_device(device),
            progress=progress,
            report=report,
            command=shlex.join(["metaprune", *sys.argv[1:]]),
        )
    show(found.to_document(), models_table(found.rows), *summary_tables(found.summary), as_json=as_json)
    if not quiet:
        if said := found.setting.get("Preprocessing"):
            print_note(f"Preprocessing: {said}")
        for line in unequal_lines(found.summary):
            print_note(line)
        for place in filter(None, (output, report)):
            print_note(f"The report is in {place}.")
