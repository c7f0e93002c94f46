"""``metaprune zoo``: the models for meta-training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import ZooSettings
from metaprune_cli.config.flags import OUTPUT
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.errors import InputError

OPTIONS = {"epochs": "train.epochs", "lr": "train.lr", "validation": "validation", "seed": "seed"}


@guarded
@unfolded
def zoo(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL",
            help="`import` followed by models: use these instead of training new ones.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Output folder, with train/, validation/ and heldout/.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("zoo"),
    *,
    settings: Annotated[ZooSettings, Section("zoo", only=OPTIONS, help={"epochs": "Training epochs for each model."})],
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
    """Train the models listed in section zoo of params.yaml; `zoo import MODEL...` uses existing models instead."""
    files = _files(models or [])
    source = model_file.source()
    from metaprune_cli.stages import zoo as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.logs import logged
    from metaprune_cli.workflows.ranks import ranks_on

    where = pick_device(device)
    with (
        ranks_on(where) as ranks,
        listening(quiet or not ranks.first) as shown,
        logged(shown, log if ranks.first or not ddp else None, jobs=jobs) as progress,
    ):
        if files:
            members = ranks.from_first(
                lambda: stage.import_zoo(files, output, settings, source=source, progress=progress)
            )
        else:
            members = stage.zoo(
                output,
                settings,
                data=data,
                device=where,
                progress=progress,
                resume=resume,
                jobs=jobs,
                ranks=ranks,
                ddp=ddp,
                preprocessing=source.preprocessing,
            )
    if ranks.first:
        rows, metrics = [member.to_document() for member in members], {member.metric for member in members}
        columns = (
            label("output", "Model"),
            label("role", "For"),
            label("architecture", "Architecture"),
            Column("seed", "Seed"),
            *(Column(f"val_{metric.key}", f"Validation {metric.in_title}", metric.write) for metric in metrics),
        )
        show({"models": rows}, Table("", columns, rows), as_json=as_json)


def _files(given: Sequence[Path]) -> Sequence[Path]:
    """The models to import: what follows the word, which may be left out."""
    if not given or given[0] != Path("import") or given[0].exists():
        return given
    if len(given) == 1:
        raise InputError("No models to import were given.", next_step="metaprune zoo import MODEL...")
    return given[1:]
