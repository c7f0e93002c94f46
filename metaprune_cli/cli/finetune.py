"""``metaprune finetune``: models trained on, the usual way."""

from __future__ import annotations

from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import OptimSettings
from metaprune_cli.config.flags import TRAINING
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

BEST = Column("best_epoch", "Of epoch")
MOST_NOTES = 3
UNREPAIRED = (
    "This model was pruned without repair. `metaprune prune … --repair least-squares` with "
    "the same images takes seconds and gives training a better start."
)
"""Said of models that come from a removal as it is."""


@guarded
@unfolded
def finetune(
    models: options.Models,
    output: options.Output = None,
    *,
    settings: Annotated[
        OptimSettings, Section("finetune", help={"epochs": "Training epochs; may be 0 with --recalibrate."})
    ],
    teacher: options.Teacher = None,
    resume: options.Resume = False,
    jobs: options.Jobs = 1,
    ddp: options.Ddp = False,
    in_all: Annotated[
        bool,
        typer.Option(
            "--in-all",
            help="Count epochs that a model was already trained for while it was being pruned (dhp), "
            "so that all models get the same training.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    log: options.Log = None,
    model_file: options.ModelFile,
    data: options.Data,
    params: options.Params = None,
    device: options.Device = "auto",
    seed: options.Seed = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train models further, usually after pruning; MODEL becomes MODEL.finetuned.safetensors."""
    source = model_file.source()
    from metaprune_cli.stages import finetune as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.logs import logged
    from metaprune_cli.workflows.ranks import ranks_on

    where = pick_device(device)
    with (
        ranks_on(where) as ranks,
        listening(quiet or not ranks.first) as shown,
        logged(shown, log if ranks.first or not ddp else None, jobs=jobs) as progress,
    ):
        tuned = stage.finetune(
            models,
            output,
            settings,
            source=source,
            data=data,
            seed=seed or 0,
            device=where,
            progress=progress,
            teacher=teacher,
            resume=resume,
            jobs=jobs,
            ranks=ranks,
            ddp=ddp,
            in_all=in_all,
        )
    if ranks.first:
        rows, metric = [model.to_document() for model in tuned], tuned[0].metric
        columns = (
            label("output", "Model"),
            Column("epochs", "Epochs"),
            Column(f"val_{metric.key}", f"Validation {metric.in_title}", metric.write),
            Column("val_loss", "Loss"),
            *((BEST,) if settings.patience else ()),
        )
        show({"models": rows}, Table("", columns, rows), as_json=as_json)
        worse = [model for model in tuned if model.worse_by] if not quiet else []
        for model in worse[:MOST_NOTES]:
            print_note(
                f"{model.output} is worse than what it was made from, on the validation images: "
                f"{metric.written(model.before or 0.0)} before, {metric.written(model.headline)} after. "
                "A smaller --lr, or more --epochs, may help."
            )
        if not quiet and any(model.unrepaired for model in tuned):
            print_note(UNREPAIRED)
        if len(worse) > MOST_NOTES:
            print_note(f"So are {len(worse) - MOST_NOTES} more.")
