"""``metaprune sensitivity``: which layers of a model can lose how much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import PruneSettings, SensitivitySettings
from metaprune_cli.console.figures import share
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

if TYPE_CHECKING:
    from metaprune_cli.reports.sensitivity import Sensitivity


@guarded
def sensitivity(
    models: options.Models,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for a table, a picture, and rules.yaml."),
    ] = None,
    ratio: Annotated[
        list[float] | None,
        typer.Option("--ratio", metavar="R", help="Of a family that goes; may be repeated. Default: 0.25 to 0.9."),
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", help="Validation images, at most. Default: 2048.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", metavar="POINTS", help="What a family may cost by itself, for the rules."),
    ] = None,
    criterion: Annotated[
        str | None, typer.Option("--criterion", metavar="NAME", help="How units are scored, as prune takes it.")
    ] = None,
    arch: options.Arch = None,
    arch_arg: options.ArchArgs = None,
    input_shape: options.InputShape = None,
    trust_pickle: options.TrustPickle = False,
    allow_import: options.AllowImport = False,
    dataset: options.Dataset = None,
    data_root: options.DataRoot = None,
    task: options.OfTask = None,
    params: options.Params = None,
    device: options.Device = "auto",
    seed: options.Seed = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Accuracy, or what else the task measures, when each family alone loses its least important channels."""
    settings = options.settings(
        SensitivitySettings, "sensitivity", params, ratios=tuple(ratio or ()) or None, images=images, max_drop=max_drop
    )
    pruning = options.settings(PruneSettings, "prune", params, criterion=criterion, seed=seed)
    source = options.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)
    data = options.data_settings(params, dataset, data_root, task)
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
        {"family": row.family, "units": row.units, "macs_share": row.macs_share, "bearable": row.bearable}
        | {f"{ratio}": drop for ratio, drop in row.drops.items()}
        for row in model.families
    ]
    whole, lost = model.metric.written(model.headline), model.metric.difference_unit or model.metric.label
    title = f"{model.input}: {lost} lost of {whole} on {model.images} images, by {model.criterion}"
    return Table(title, columns, rows)
