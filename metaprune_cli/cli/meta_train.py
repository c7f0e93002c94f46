"""``metaprune meta-train``: a zoo of neuron graphs → a metanetwork."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import MetanetSettings, MetaTrainSettings
from metaprune_cli.config.flags import DATA, OUTPUT
from metaprune_cli.console.figures import count
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

COLUMNS = (
    label("output", "Metanetwork"),
    Column("graphs", "Trained on"),
    Column("validation", "Chosen on"),
    Column("epochs", "Epochs"),
    Column("best_epoch", "Best"),
    Column("params", "Params", count),
)


@guarded
@unfolded
def meta_train(
    graphs: Annotated[list[Path], typer.Argument(metavar="GRAPH...", help="Graphs to train on, or folders of them.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Output file for the metanetwork.", rich_help_panel=OUTPUT),
    ],
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            "--validation",
            rich_help_panel=DATA,
            metavar="GRAPH",
            help="Graphs used to choose the best epoch; may be repeated. Default: the last one.",
        ),
    ] = None,
    shares: Annotated[
        list[Path] | None,
        typer.Option(
            "--shares",
            rich_help_panel=DATA,
            metavar="PRUNED",
            help="Pruned models of the zoo, or folders of them, as examples of how much each layer "
            "should lose (see prune --search); may be repeated.",
        ),
    ] = None,
    *,
    settings: Annotated[MetaTrainSettings, Section("meta-train")],
    metanet: Annotated[MetanetSettings, Section("metanet")],
    resume: options.Resume = False,
    log: options.Log = None,
    allow_import: options.AllowImport = False,
    data: options.TestData,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a metanetwork on a zoo of neuron graphs and keep its best epoch."""
    source = options.ModelFile(allow_import=allow_import).source()
    from metaprune_cli.stages import meta_train as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.logs import logged
    from metaprune_cli.workflows.ranks import ranks_on

    where = pick_device(device)
    with (
        ranks_on(where) as ranks,
        listening(quiet or not ranks.first) as shown,
        logged(shown, log if ranks.first else None) as progress,
    ):
        trained = stage.meta_train(
            graphs,
            validation or (),
            output,
            metanet,
            settings,
            source=source,
            data=data,
            device=where,
            progress=progress,
            shares=shares or (),
            resume=resume,
            ranks=ranks,
        )
    if ranks.first:
        row = asdict(trained)
        show(row, Table("", COLUMNS, [row]), as_json=as_json)
