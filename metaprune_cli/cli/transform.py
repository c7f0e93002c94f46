"""``metaprune transform``: models through a metanetwork."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.completion import metanetworks
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import DataSettings, TransformSettings
from metaprune_cli.config.flags import MODELS
from metaprune_cli.console.figures import share
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

COLUMNS = (
    label("output", "Model"),
    Column("change", "Change", share),
    label("recalibrated", "Recalibrated"),
)


@guarded
@unfolded
def transform(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="MODEL|GRAPH...", help="Model or graph files, or folders of such artifacts.")
    ],
    output: options.Output = None,
    metanet: Annotated[
        Path,
        typer.Option(
            "--metanet",
            metavar="FILE|NAME",
            help="File of a metanetwork, or the name of a built-in one.",
            rich_help_panel=MODELS,
            autocompletion=metanetworks,
        ),
    ] = Path("builtin"),
    *,
    settings: Annotated[TransformSettings, Section("transform")],
    recalibrate: bool | None = None,
    model_file: options.ModelFile,
    data: options.KnownData,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Rewrite the weights of models with a metanetwork; MODEL becomes MODEL.transformed.safetensors."""
    if recalibrate and data is None:
        data = DataSettings()
    source = model_file.source()
    from metaprune_cli.stages import transform as stage
    from metaprune_cli.workflows.device import pick_device

    with listening(quiet) as progress:
        models = stage.transform(
            inputs,
            output,
            settings,
            metanetwork=metanet,
            source=source,
            data=data,
            device=pick_device(device),
            progress=progress,
        )
    rows = [asdict(model) for model in models]
    show({"models": rows}, Table("", COLUMNS, rows), as_json=as_json)
