"""``metaprune pruning-net``: a model → a network that gives its weights for any widths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import PruneSettings, PruningNetSettings
from metaprune_cli.console.figures import count, times
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

PRUNING = ("criterion", "max_ratio", "round_to", "keep_heads", "route")
"""The options of pruning that say which widths there are."""


def _mib(value: float) -> str:
    return f"{value / 2**20:.0f} MiB"


def _loss(value: float) -> str:
    return f"{value:.4f}"


COLUMNS = (
    label("output", "PruningNet"),
    Column("genes", "Widths"),
    Column("speedup", "Smallest", times),
    label("generator", "Generator"),
    Column("memory", "in training", _mib),
    label("route", "Runs as"),
    Column("params", "Params", count),
    Column("epochs", "Epochs"),
    Column("val_loss", "Loss", _loss),
)


@guarded
@unfolded
def pruning_net(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Models, or folders of them. Without any: the architecture given by --arch, from scratch.",
            show_default=False,
        ),
    ] = None,
    output: options.Output = None,
    *,
    settings: Annotated[PruningNetSettings, Section("pruning-net")],
    pruning: Annotated[
        PruneSettings,
        Section(
            "prune", only=PRUNING, help={"criterion": "How units are ranked if the model is trained, as in prune."}
        ),
    ],
    resume: options.Resume = False,
    jobs: options.Jobs = 1,
    ddp: options.Ddp = False,
    log: options.Log = None,
    model_file: options.ModelFile,
    data: options.Data,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a network that generates a model's weights for any widths; MODEL becomes MODEL.pruningnet.safetensors."""
    source = model_file.source()
    from metaprune_cli.stages import pruning_net as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.logs import logged
    from metaprune_cli.workflows.ranks import ranks_on

    where = pick_device(device)
    with (
        ranks_on(where) as ranks,
        listening(quiet or not ranks.first) as shown,
        logged(shown, log if ranks.first or not ddp else None, jobs=jobs) as progress,
    ):
        trained = stage.pruning_net(
            models or (),
            output,
            settings,
            pruning,
            source=source,
            data=data,
            device=where,
            progress=progress,
            resume=resume,
            jobs=jobs,
            ranks=ranks,
            ddp=ddp,
        )
    if ranks.first:
        rows, metric = [one.to_document() for one in trained], trained[0].metric
        columns = (*COLUMNS, Column(f"val_{metric.key}", f"Validation {metric.in_title}", metric.write))
        show({"pruning_nets": rows}, Table("", columns, rows), as_json=as_json)
