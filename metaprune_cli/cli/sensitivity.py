"""``metaprune sensitivity``: which layers of a model can lose how much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import PruneSettings, SensitivitySettings
from metaprune_cli.config.flags import OUTPUT
from metaprune_cli.console.figures import share
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

if TYPE_CHECKING:
    from metaprune_cli.reports.sensitivity import Sensitivity


@guarded
@unfolded
def sensitivity(
    models: options.Models,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for a table, a picture and rules.yaml.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    *,
    settings: Annotated[SensitivitySettings, Section("sensitivity")],
    pruning: Annotated[
        PruneSettings,
        Section("prune", only=("criterion", "seed"), help={"criterion": "How units are scored, as in prune."}),
    ],
    draw: options.Draw = None,
    model_file: options.ModelFile,
    data: options.Data,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure how much accuracy (or the task's metric) drops if each layer alone is pruned."""
    source = model_file.source()
    from metaprune_cli.stages import sensitivity as stage
    from metaprune_cli.workflows.device import pick_device

    with listening(quiet) as progress:
        found = stage.sensitivity(
            models,
            output,
            settings,
            pruning=pruning,
            source=source,
            data=data,
            device=pick_device(device),
            progress=progress,
            drawing=draw,
        )
    show({"models": [model.to_document() for model in found]}, *map(_table, found), as_json=as_json)
    if output is not None and not quiet:
        print_note(f"Tables, pictures and rules are in {output}.")


def _table(model: Sensitivity) -> Table:
    """Families downwards, ratios across."""
    ratios = list(model.families[0].drops)
    columns = (
        label("family", "Family"),
        Column("units", "Units"),
        Column("macs_share", "Of MACs", share),
        *(Column(f"{ratio}", f"-{share(ratio)}", model.metric.write) for ratio in ratios),
        Column("bearable", "Bearable", share),
    )
    rows = [
        {"family": row.title, "units": row.units, "macs_share": row.macs_share, "bearable": row.bearable}
        | {f"{ratio}": drop for ratio, drop in row.drops.items()}
        for row in model.families
    ]
    whole, lost = model.metric.written(model.headline), model.metric.difference_unit or model.metric.label
    title = f"{model.input}: {lost} lost of {whole} on {model.images} images, by {model.criterion}"
    return Table(title, columns, rows)
