"""``metaprune init``: a pipeline for one's own model and images."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import DataSettings
from metaprune_cli.config.flags import MODEL_FILE, OUTPUT
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.table import Table, label

COLUMNS = (label("file", "File"), label("state", ""))


@guarded
@unfolded
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder; created if necessary.", show_default=False)
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            rich_help_panel=MODEL_FILE,
            metavar="FILE",
            help="Your trained model. Default: train one, see --arch.",
        ),
    ] = None,
    *,
    code: options.ModelCode,
    data: Annotated[DataSettings, Section("data", only=options.DATA | {"image_size": "image_size"})],
    metanet: Annotated[
        Path | None,
        typer.Option(
            "--metanet",
            rich_help_panel=MODEL_FILE,
            metavar="FILE",
            help="A metanetwork: prune with and without it, and compare.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Overwrite dvc.yaml and params.yaml.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Create a dvc.yaml and params.yaml that prune, finetune and evaluate your model; run them with `dvc repro`."""
    source = code.source()
    from metaprune_cli.stages import init as stage

    laid = stage.init(folder, model=model, source=source, data=data, metanet=metanet, force=force)
    rows = [{"file": name, "state": "written"} for name in laid.written]
    rows += [{"file": name, "state": "was there, left alone"} for name in laid.kept]
    show(asdict(laid), Table("", COLUMNS, rows), as_json=as_json)
    if not quiet:
        print_note(f"Next: cd {shlex.quote(str(folder))} && git init && dvc init && dvc repro")
