"""``metaprune prune``: models → smaller models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import PruneSettings, Ranking, Scope
from metaprune_cli.console.figures import count, scientific, times
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

if TYPE_CHECKING:
    from metaprune_cli.stages.prune import PrunedFile

COLUMNS = (
    label("output", "Model"),
    Column("requested", "Asked", times),
    Column("achieved", "Speed-up", times),
    Column("macs_before", "MACs before", count),
    Column("macs_after", "after", count),
    Column("params_before", "Params before", count),
    Column("params_after", "after", count),
    Column("error", "Check", scientific),
)
FAMILY_COLUMNS = (
    label("name", "Family"),
    Column("before", "Before"),
    Column("after", "After"),
    label("locked", "Locked because"),
)


@guarded
def prune(
    models: options.Models,
    output: options.Output = None,
    speedup: Annotated[
        list[float] | None,
        typer.Option("--speedup", "-s", metavar="X", help="MACs before / MACs after; may be repeated. Default: 2."),
    ] = None,
    criterion: Annotated[
        Ranking | None,
        typer.Option("--criterion", help="How units are scored; auto: by a metanetwork if one has, else group-l2."),
    ] = None,
    scope: Annotated[
        Scope | None, typer.Option("--scope", help="Rank all units together, or take as much from each family.")
    ] = None,
    max_ratio: Annotated[
        float | None, typer.Option("--max-ratio", metavar="R", help="Most of a family that may go. Default: 0.8.")
    ] = None,
    batches: Annotated[
        int | None, typer.Option("--batches", metavar="N", help="Training batches for the gradients of taylor.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; write nothing.")] = False,
    arch: options.Arch = None,
    arch_arg: options.ArchArgs = None,
    input_shape: options.InputShape = None,
    trust_pickle: options.TrustPickle = False,
    allow_import: options.AllowImport = False,
    dataset: options.Dataset = None,
    data_root: options.DataRoot = None,
    params: options.Params = None,
    device: options.Device = "auto",
    seed: options.Seed = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Remove what matters least until a model is X times cheaper; MODEL is turned into MODEL.pruned-2x.safetensors."""
    settings = options.settings(
        PruneSettings,
        "prune",
        params,
        speedup=speedup or None,
        criterion=criterion,
        scope=scope,
        max_ratio=max_ratio,
        batches=batches,
        seed=seed,
    )
    source = options.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)
    data = options.known_data(params, dataset, data_root)
    if settings.criterion == "taylor" and data is None:
        data = options.data_settings(params, dataset, data_root)
    from metaprune_cli.stages import prune as stage
    from metaprune_cli.stages.device import pick_device

    with listening(quiet) as progress:
        pruned = stage.prune(
            models,
            output,
            settings,
            source=source,
            data=data,
            device=pick_device(device),
            progress=progress,
            dry_run=dry_run,
        )
    rows = [asdict(model) for model in pruned]
    tables = _plans(pruned) if dry_run else [Table("", COLUMNS, rows)]
    show({"dry_run": dry_run, "models": rows}, *tables, as_json=as_json)


def _plans(pruned: Sequence[PrunedFile]) -> list[Table]:
    """One table for each plan: what every family would lose."""
    return [
        Table(
            f"{model.input}: {times(model.achieved)} (asked: {times(model.requested)}), "
            f"{count(model.macs_before)} → {count(model.macs_after)} MACs, "
            f"{count(model.params_before)} → {count(model.params_after)} parameters",
            FAMILY_COLUMNS,
            [asdict(family) for family in model.families],
        )
        for model in pruned
    ]
