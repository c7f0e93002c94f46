"""``metaprune finetune``: models trained on, the usual way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import OptimizerName, OptimSettings, Precision, ScheduleName
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

BEST = Column("best_epoch", "Of epoch")


@guarded
def finetune(
    models: options.Models,
    output: options.Output = None,
    epochs: Annotated[int | None, typer.Option("--epochs", metavar="N", help="Epochs; 0 with --recalibrate.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", metavar="X", help="Learning rate at its highest.")] = None,
    optimizer: Annotated[OptimizerName | None, typer.Option("--optimizer", help="How weights are updated.")] = None,
    schedule: Annotated[ScheduleName | None, typer.Option("--schedule", help="How the learning rate falls.")] = None,
    recalibrate: Annotated[
        bool | None,
        typer.Option("--recalibrate/--no-recalibrate", help="Measure BatchNorm statistics anew at the end."),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", metavar="X", help="Sparse learning: pull unimportant units to zero (try 5e-4)."),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher",
            metavar="MODEL",
            help="Learn from its outputs too; a folder: each model from its own base in it.",
        ),
    ] = None,
    mixup: Annotated[
        float | None, typer.Option("--mixup", metavar="X", help="Mix images, their shares from Beta(X, X) (try 0.2).")
    ] = None,
    cutmix: Annotated[
        float | None, typer.Option("--cutmix", metavar="X", help="Paste rectangles, shares from Beta(X, X) (try 1).")
    ] = None,
    ema: Annotated[
        float | None, typer.Option("--ema", metavar="X", help="Keep the weights' average of this decay (try 0.999).")
    ] = None,
    clip: Annotated[
        float | None, typer.Option("--clip", metavar="X", help="The gradient's norm is at most this (try 1).")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", metavar="N", help="Stop after N epochs without a better one; keep the best."),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Of the arithmetic; auto: bfloat16 on CUDA alone.")
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile the training steps.")
    ] = None,
    resume: options.Resume = False,
    jobs: options.Jobs = 1,
    ddp: options.Ddp = False,
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
    """Train models on; MODEL is turned into MODEL.finetuned.safetensors."""
    settings = options.settings(
        OptimSettings,
        "finetune",
        params,
        epochs=epochs,
        lr=lr,
        optimizer=optimizer,
        schedule=schedule,
        recalibrate=recalibrate,
        sparsity=sparsity,
        mixup=mixup,
        cutmix=cutmix,
        ema=ema,
        clip=clip,
        patience=patience,
        precision=precision,
        compile=compile_,
    )
    source = options.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)
    data = options.data_settings(params, dataset, data_root, task)
    from metaprune_cli.stages import finetune as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.ranks import ranks_on

    where = pick_device(device)
    with ranks_on(where) as ranks, listening(quiet or not ranks.first) as progress:
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
