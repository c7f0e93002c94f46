"""``metaprune init``: a pipeline for one's own model and images."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import DatasetName, DataSettings
from metaprune_cli.config_loader import parse
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.table import Table, label

COLUMNS = (label("file", "File"), label("state", ""))


@guarded
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; made if need be.", show_default=False)],
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FILE", help="Your trained model. Default: one is trained, see --arch."),
    ] = None,
    arch: options.Arch = None,
    arch_arg: options.ArchArgs = None,
    trust_pickle: options.TrustPickle = False,
    allow_import: options.AllowImport = False,
    dataset: Annotated[DatasetName, typer.Option("--dataset", help="Which images.")] = DataSettings.dataset,
    data_root: options.DataRoot = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="N", min=1, help="Side of the images. Default: their own; folders: 224."),
    ] = None,
    metanet: Annotated[
        Path | None,
        typer.Option("--metanet", metavar="FILE", help="A metanetwork: prune with it and without, and compare."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace dvc.yaml and params.yaml.")] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Lay down dvc.yaml and params.yaml that prune, finetune and evaluate your model: `dvc repro` runs them."""
    source = options.model_source(arch, arch_arg, None, trust_pickle, allow_import)
    root = None if data_root is None else str(data_root)
    given = options.given(dataset=dataset, data_root=root, image_size=image_size)
    data = parse(DataSettings, given, section="data", where="the options")
    from metaprune_cli.stages import init as stage

    laid = stage.init(folder, model=model, source=source, data=data, metanet=metanet, force=force)
    rows = [{"file": name, "state": "written"} for name in laid.written]
    rows += [{"file": name, "state": "was there, left alone"} for name in laid.kept]
    show(asdict(laid), Table("", COLUMNS, rows), as_json=as_json)
    if not quiet:
        print_note(f"Next: cd {shlex.quote(str(folder))} && git init && dvc init && dvc repro")
