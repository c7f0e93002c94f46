"""``metaprune iterate``: models → smaller models in rounds, trained after each."""

from __future__ import annotations

from typing import Annotated

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import IterateSettings, OptimSettings, PruneSettings
from metaprune_cli.console.figures import count, times
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

SIZES = (
    Column("achieved", "Achieved", times),
    Column("macs", "MACs", count),
    Column("params", "Params", count),
)


@guarded
@unfolded
def iterate(
    models: options.Models,
    output: options.Output = None,
    *,
    settings: Annotated[IterateSettings, Section("iterate")],
    pruning: Annotated[
        PruneSettings,
        Section(
            "prune",
            only=("speedup", "target", "criterion", "repair", "seed"),
            help={
                "speedup": "Speed-up after all rounds; may be repeated.",
                "target": "Another kind of target, as in prune: params=4x.",
                "criterion": "How units are scored, as in prune.",
                "repair": "Repair in every round, before training.",
            },
        ),
    ],
    training: Annotated[
        OptimSettings,
        Section(
            "finetune",
            only={"last_epochs": "epochs", "lr": "lr"},
            help={"last_epochs": "Training epochs after the last round; also finetune.epochs in params.yaml."},
        ),
    ],
    resume: options.Resume = False,
    log: options.Log = None,
    model_file: options.ModelFile,
    data: options.Data,
    params: options.Params = None,
    device: options.Device = "auto",
    seed: int | None = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Prune in rounds, with training after each one; MODEL becomes MODEL.iterated-2x.safetensors.

    All other settings come from the sections prune and finetune of params.yaml. The models of each round are in
    MODEL.iterated-2x.rounds.
    """
    source = model_file.source()
    from metaprune_cli.stages import iterate as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.logs import logged

    with listening(quiet) as shown, logged(shown, log) as progress:
        done = stage.iterate(
            models,
            output,
            settings,
            pruning=pruning,
            training=training,
            source=source,
            data=data,
            seed=seed or 0,
            device=pick_device(device),
            progress=progress,
            resume=resume,
        )
    rows, metric = [model.to_document() for model in done], done[0].metric
    columns = (
        label("output", "Model"),
        Column("requested", "Asked", times),
        *SIZES,
        Column(f"whole_{metric.key}", f"Validation {metric.in_title}, before", metric.write),
        Column(f"val_{metric.key}", "after", metric.write),
    )
    round_columns = (
        Column("number", "Round"),
        Column("asked", "Asked", times),
        *SIZES,
        Column(f"val_{metric.key}", f"Validation {metric.in_title}", metric.write),
        Column("drop", "Drop", metric.write),
        label("kept", "Kept"),
    )
    tables = [Table(f"{row['output']}: rounds", round_columns, row["rounds"]) for row in rows]
    show({"models": rows}, Table("", columns, rows), *tables, as_json=as_json)
