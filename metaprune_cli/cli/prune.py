"""``metaprune prune``: models → smaller models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import (
    Normalising,
    PruneSettings,
    Ranking,
    Reduction,
    Repair,
    Scope,
)
from metaprune_cli.config_loader import parse
from metaprune_cli.console.figures import count, scientific, times
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

if TYPE_CHECKING:
    from metaprune_cli.stages.prune import PrunedFile

COLUMNS = (
    label("output", "Model"),
    Column("requested", "Asked", times),
    Column("achieved", "Achieved", times),
    Column("speedup", "Speed-up", times),
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
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="QUANTITY=AMOUNT",
            help="Something else: params=2x, macs=50%, size=10MB, memory=4MiB, latency=3ms; drop=0.5: as far as "
            "accuracy (or the task's first metric) on validation images is no worse by more; may be repeated.",
        ),
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            "--criterion",
            metavar="NAME",
            help=f"How units are scored: {', '.join(get_args(Ranking))}, or package.module:function. "
            "auto: by a metanetwork if one has, else group-l2.",
        ),
    ] = None,
    reduction: Annotated[
        Reduction | None, typer.Option("--reduction", help="Of a unit's slices to one number.")
    ] = None,
    normaliser: Annotated[
        Normalising | None,
        typer.Option("--normaliser", help="What a layer's scores are divided by; rank: places in the layer instead."),
    ] = None,
    scope: Annotated[
        Scope | None, typer.Option("--scope", help="Rank all units together, or take as much from each family.")
    ] = None,
    max_ratio: Annotated[
        float | None, typer.Option("--max-ratio", metavar="R", help="Most of a family that may go. Default: 0.8.")
    ] = None,
    round_to: Annotated[
        int | None,
        typer.Option("--round-to", metavar="N", help="Where channels go, those that stay are a multiple of N."),
    ] = None,
    keep_heads: Annotated[bool, typer.Option("--keep-heads", help="Remove no attention heads.")] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="MATCH",
            help="Layers that keep all they produce: a glob, re:..., type:CLASS; repeatable.",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="'MATCH: KEY=VALUE,...' with max_ratio, min_ratio, min_units, round_to, ignore, tie; may be repeated.",
        ),
    ] = None,
    batches: Annotated[
        int | None, typer.Option("--batches", metavar="N", help="Training batches for criteria that need data.")
    ] = None,
    repair: Annotated[
        Repair | None,
        typer.Option("--repair", help="Without training: fit what is left to what the whole model did on images."),
    ] = None,
    repair_images: Annotated[
        int | None, typer.Option("--repair-images", metavar="N", help="How many. Default: 512.")
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            "--search", metavar="N", help="Try N other shares for the layers, judged by what is left on images."
        ),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="One search for all models of the same structure.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; write nothing.")] = False,
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
    """Remove what matters least until a model is X times cheaper; MODEL is turned into MODEL.pruned-2x.safetensors.

    Weights are zeroed, and all shapes kept, by `metaprune sparsify`.
    """
    flags = options.given(
        speedup=speedup or None,
        target=target or None,
        criterion=criterion,
        reduction=reduction,
        normaliser=normaliser,
        scope=scope,
        max_ratio=max_ratio,
        round_to=round_to,
        keep_heads=keep_heads or None,
        batches=batches,
        repair=repair,
        repair_images=repair_images,
        search=search,
        together=together or None,
        seed=seed,
    )
    instead = {"target": ()} if speedup and not target else {}  # of those in params.yaml
    settings = options.settings(PruneSettings, "prune", params, **flags, **instead)
    settings = with_rules(settings, ignore or (), rule or ())
    source = options.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)
    data = options.known_data(params, dataset, data_root, task)
    if data is None and settings.needs_images:  # those of the default data set
        data = options.data_settings(params, dataset, data_root, task)
    from metaprune_cli.stages import prune as stage
    from metaprune_cli.workflows.device import pick_device

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


def with_rules(settings: PruneSettings, ignore: Sequence[str], rules: Sequence[str]) -> PruneSettings:
    """The settings with the command line's rules after those of params.yaml.

    Raises:
        InputError: a rule cannot be read.
    """
    texts = [*rules, *(f"{match}: ignore" for match in ignore)]
    further = parse(PruneSettings, {"rules": options.pruning_rules(texts)}, section="prune", where="the options").rules
    return replace(settings, rules=settings.rules + further)


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
