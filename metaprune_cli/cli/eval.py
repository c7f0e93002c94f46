"""``metaprune eval``: models measured on the test images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import EvalSettings, PruneSettings
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening

Report = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Folder for report.md, curve.png, JSON and CSV files."),
]
Page = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="One HTML file with tables, curves and widths.")
]
Base = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="What speed-ups are against: a file, or a folder with each model's own base. "
        "Default: the model it was made from if that is given too, else the first.",
    ),
]
Curve = Annotated[
    bool, typer.Option("--curve", help="Also prune each unpruned model further and further, without finetuning it.")
]
Speedups = Annotated[
    list[float] | None,
    typer.Option("--speedup", "-s", metavar="X", help="A speed-up of the curve; may be repeated. Default: 1.5 to 8."),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="ARM",
        help="Also compare every other arm with this one; may be repeated. "
        "Default: every method's arm with every baseline.",
    ),
]
LatencyBatch = Annotated[
    int | None, typer.Option("--latency-batch", metavar="N", help="Images in one timed forward pass.")
]
LatencyRuns = Annotated[
    int | None, typer.Option("--latency-runs", metavar="N", help="Timed forward passes of each model.")
]


@guarded
def evaluate(
    models: options.Models,
    output: Report = None,
    report: Page = None,
    base: Base = None,
    curve: Curve = False,
    speedup: Speedups = None,
    against: Against = None,
    latency_batch: LatencyBatch = None,
    latency_runs: LatencyRuns = None,
    dataset: options.Dataset = None,
    data_root: options.DataRoot = None,
    task: options.OfTask = None,
    arch: options.Arch = None,
    arch_arg: options.ArchArgs = None,
    input_shape: options.InputShape = None,
    trust_pickle: options.TrustPickle = False,
    allow_import: options.AllowImport = False,
    params: options.Params = None,
    device: options.Device = "auto",
    seed: options.Seed = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """What the task measures (accuracy) on the test images, MACs, parameters, file size, latency; curves of them."""
    settings = options.settings(
        EvalSettings,
        "eval",
        params,
        curve=tuple(speedup) if speedup else None,
        against=tuple(against) if against else None,
        latency_batch=latency_batch,
        latency_runs=latency_runs,
        seed=seed,
    )
    pruning = options.settings(PruneSettings, "prune", params) if curve or speedup else None
    data = options.data_settings(params, dataset, data_root, task)
    source = options.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)

    from metaprune_cli.reports.report import models_table, summary_tables, unequal_lines
    from metaprune_cli.stages import eval as stage
    from metaprune_cli.workflows.device import pick_device

    with listening(quiet) as progress:
        found = stage.evaluate(
            models,
            output,
            settings,
            base=base,
            pruning=pruning,
            source=source,
            data=data,
            device=pick_device(device),
            progress=progress,
            report=report,
            command=shlex.join(["metaprune", *sys.argv[1:]]),
        )
    show(found.to_document(), models_table(found.rows), *summary_tables(found.summary), as_json=as_json)
    if not quiet:
        for line in unequal_lines(found.summary):
            print_note(line)
        for place in filter(None, (output, report)):
            print_note(f"The report is in {place}.")
