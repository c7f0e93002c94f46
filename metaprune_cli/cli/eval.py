"""``metaprune eval``: models measured on the test images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options as opt
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import EvalSettings, PruneSettings
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening

Report = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Folder for report.md, curve.png, metrics.json and CSV files."),
]
Base = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="What speed-ups are against: a file, or a folder with each model's own base. Default: the first model, "
        "or the one another was made from.",
    ),
]
Curve = Annotated[
    bool, typer.Option("--curve", help="Also prune each unpruned model further and further, without finetuning it.")
]
Speedups = Annotated[
    list[float] | None,
    typer.Option("--speedup", metavar="TIMES", help="A speed-up of the curve; may be repeated. Default: eval.curve."),
]
LatencyBatch = Annotated[int | None, typer.Option("--latency-batch", help="Images in one timed forward pass.")]
LatencyRuns = Annotated[int | None, typer.Option("--latency-runs", help="Timed forward passes of each model.")]


@guarded
def eval_(
    models: opt.Models,
    output: Report = None,
    base: Base = None,
    curve: Curve = False,
    speedup: Speedups = None,
    latency_batch: LatencyBatch = None,
    latency_runs: LatencyRuns = None,
    dataset: opt.Dataset = None,
    data_root: opt.DataRoot = None,
    arch: opt.Arch = None,
    arch_arg: opt.ArchArgs = None,
    input_shape: opt.InputShape = None,
    trust_pickle: opt.TrustPickle = False,
    allow_import: opt.AllowImport = False,
    params: opt.Params = None,
    device: opt.Device = "auto",
    seed: opt.Seed = None,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Accuracy on the test images, MACs, parameters, file size, latency, and accuracy-speed-up curves."""
    settings = opt.settings(
        EvalSettings,
        "eval",
        params,
        curve=tuple(speedup) if speedup else None,
        latency_batch=latency_batch,
        latency_runs=latency_runs,
        seed=seed,
    )
    pruning = opt.settings(PruneSettings, "prune", params) if curve or speedup else None
    data = opt.data_settings(params, dataset, data_root)
    source = opt.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)

    from metaprune_cli.stages.device import pick_device
    from metaprune_cli.stages.eval import evaluate
    from metaprune_cli.stages.evaluation.report import models_table, summary_tables

    with listening(quiet) as progress:
        found = evaluate(
            models,
            output,
            settings,
            base=base,
            pruning=pruning,
            source=source,
            data=data,
            device=pick_device(device),
            progress=progress,
        )
    show(found.to_document(), models_table(found.rows), *summary_tables(found.summary), as_json=as_json)
    if output is not None and not quiet:
        print_note(f"The report is in {output}.")
