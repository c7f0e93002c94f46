"""``metaprune iterate``: models → smaller models in rounds, trained after each."""

from __future__ import annotations

from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import IterateSettings, OptimSettings, PruneSettings, Repair, Rounds
from metaprune_cli.console.figures import count, times
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

SIZES = (
    Column("achieved", "Achieved", times),
    Column("macs", "MACs", count),
    Column("params", "Params", count),
)


@guarded
def iterate(
    models: options.Models,
    output: options.Output = None,
    speedup: Annotated[
        list[float] | None,
        typer.Option("--speedup", "-s", metavar="X", help="After all rounds together; may be repeated. Default: 2."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", metavar="QUANTITY=AMOUNT", help="Something else, as prune takes it: params=4x."),
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", metavar="N", help="How many. Default: 4.")] = None,
    schedule: Annotated[
        Rounds | None,
        typer.Option("--schedule", help="The same share every round, the same amount, or much first (AGP)."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", help="Of training after every round. Default: 2.")
    ] = None,
    last_epochs: Annotated[
        int | None, typer.Option("--last-epochs", metavar="N", help="And after the last. Default: finetune.epochs.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            help="Stop before the headline metric (accuracy) on validation images is worse by more.",
        ),
    ] = None,
    criterion: Annotated[
        str | None, typer.Option("--criterion", metavar="NAME", help="How units are scored, as prune takes it.")
    ] = None,
    repair: Annotated[Repair | None, typer.Option("--repair", help="In every round, before the training.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", metavar="X", help="Learning rate at its highest.")] = None,
    resume: options.Resume = False,
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
    """Prune in rounds and train after each; MODEL is turned into MODEL.iterated-2x.safetensors.

    Everything else is as the sections prune and finetune of params.yaml say. The files of the rounds are in
    MODEL.iterated-2x.rounds.
    """
    settings = options.settings(
        IterateSettings, "iterate", params, rounds=rounds, schedule=schedule, epochs=epochs, max_drop=max_drop
    )
    instead = {"target": ()} if speedup and not target else {}  # of those in params.yaml
    pruning = options.settings(
        PruneSettings,
        "prune",
        params,
        **options.given(speedup=speedup or None, target=target or None, criterion=criterion, repair=repair, seed=seed),
        **instead,
    )
    training = options.settings(OptimSettings, "finetune", params, epochs=last_epochs, lr=lr)
    source = options.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)
    data = options.data_settings(params, dataset, data_root, task)
    from metaprune_cli.stages import iterate as stage
    from metaprune_cli.workflows.device import pick_device

    with listening(quiet) as progress:
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
