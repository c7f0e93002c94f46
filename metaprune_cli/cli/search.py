"""``metaprune search``: the widths of a model's layers, by evolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.prune import with_rules
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import OptimSettings, PruneSettings, SearchSettings
from metaprune_cli.config.flags import OUTPUT, WHICH_LAYERS
from metaprune_cli.console.figures import count, times
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

if TYPE_CHECKING:
    from metaprune_cli.stages.search import SearchedFile

PRUNING = ("speedup", "target", "criterion", "max_ratio", "round_to", "keep_heads", "route", "seed")


@guarded
@unfolded
def search(
    models: options.Models,
    output: options.Output = None,
    *,
    settings: Annotated[SearchSettings, Section("search")],
    pruning: Annotated[
        PruneSettings,
        Section(
            "prune",
            only=PRUNING,
            help={
                "target": "Another kind of target, as in prune: params=4x, latency=3ms.",
                "criterion": "How units are scored; the highest in each layer are kept. As in prune.",
            },
        ),
    ],
    training: Annotated[OptimSettings, Section("finetune", only=())],
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="MATCH",
            rich_help_panel=WHICH_LAYERS,
            help="Layers whose outputs are not pruned, as in prune; may be repeated.",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            rich_help_panel=WHICH_LAYERS,
            help="Rule for matching layers, as in prune; may be repeated.",
        ),
    ] = None,
    heirs: Annotated[
        list[Path] | None,
        typer.Option(
            "--models",
            metavar="MODEL",
            rich_help_panel=OUTPUT,
            help="With a PruningNet: prune these models of the same structure, or all in a folder, to "
            "the widths that are found.",
        ),
    ] = None,
    draw: options.Draw = None,
    resume: options.Resume = False,
    jobs: options.Jobs = 1,
    model_file: options.ModelFile,
    data: options.Data,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Search for the best width of each layer; MODEL becomes MODEL.searched-2x.safetensors.

    Candidates are pruned, repaired and evaluated on training images; the best are evaluated again on other images and
    compared with plans that need no search. Nothing is trained.
    """
    pruning = with_rules(replace(pruning, search=0, together=False), ignore or (), rule or ())
    source = model_file.source()
    from metaprune_cli.stages import search as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.ranks import ranks_on

    where = pick_device(device)
    with ranks_on(where) as ranks, listening(quiet or not ranks.first) as progress:
        found = stage.search(
            models,
            output,
            settings,
            pruning=pruning,
            training=training,
            source=source,
            data=data,
            seed=pruning.seed,
            device=where,
            progress=progress,
            resume=resume,
            jobs=jobs,
            ranks=ranks,
            heirs=heirs or (),
            drawing=draw,
        )
    if not ranks.first:
        return
    show(
        {"models": [model.to_document() for model in found]},
        _table(found),
        *(_taus(model) for model in found if model.taus),
        as_json=as_json,
    )
    if not quiet:
        for model in found:
            if model.how in model.baselines:
                print_note(
                    f"{model.output}: nothing that was found is better than {model.how} by more than chance on images "
                    f"that had no say ({model.gain:.4f} lower, standard error {model.error:.4f}), so it is {model.how}."
                )


def _table(found: Sequence[SearchedFile]) -> Table:
    metric = found[0].metric
    columns = (
        label("output", "Model"),
        Column("requested", "Asked", times),
        Column("achieved", "Achieved", times),
        Column("macs_after", "MACs", count),
        Column("params_after", "Params", count),
        Column("evaluated", "Tried", count),
        label("how", "Found by"),
        Column("headline", f"Verified {metric.in_title}", metric.write),
        *(Column(how, how, metric.write) for how in found[0].baselines),
    )
    rows = [
        model.to_document()
        | {"headline": model.headline}
        | {how: headline for how, (_, headline) in model.baselines.items()}
        for model in found
    ]
    return Table("", columns, rows)


def _taus(model: SearchedFile) -> Table:
    """What a rank check found."""
    columns = (
        label("fitness", "Fitness"),
        Column("tau", "Kendall's τ", _two_digits),
        Column("low", "from", _two_digits),
        Column("high", "to", _two_digits),
    )
    rows = [
        {"fitness": name, "tau": tau, "low": low, "high": high} for name, (tau, low, high) in (model.taus or {}).items()
    ]
    return Table(f"{model.output}: does the fitness tell which widths end best?", columns, rows)


def _two_digits(value: float) -> str:
    return f"{value:.2f}"
