"""``metaprune prune``: models → smaller models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.cli.texts import pruning_rules
from metaprune_cli.config import DataSettings, PruneSettings
from metaprune_cli.config_loader import parse
from metaprune_cli.console.figures import count, scientific, times
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

if TYPE_CHECKING:
    from metaprune_cli.stages.prune import PrunedFile

COLUMNS = (
    label("output", "Model"),
    Column("requested", "Asked", times, minor=True),
    Column("achieved", "Achieved", times),
    Column("speedup", "Speed-up", times),
    Column("macs_before", "MACs before", count),
    Column("macs_after", "after", count),
    Column("params_before", "Params before", count, minor=True),
    Column("params_after", "after", count, minor=True),
    Column("error", "Check", scientific, minor=True),
    label("route", "Route"),
)
HELD_COLUMNS = (label("model", "Model"), label("family", "Family"), label("reason", "Locked because"))
PROGRAM = (
    "The model's class could not adapt to the new sizes, so the smaller model is a program of "
    "its operators (route program). It takes any batch size, but only inputs of the size it "
    "was made for, and has none of the class's methods (such as generate). Use --route class "
    "to keep the class."
)
"""What it means that a model is a program."""
UNREPAIRED = (
    "With these images you could also repair the model: --repair least-squares fits what is "
    "left to what the original model computed on them. It takes seconds and, without "
    "training, usually gains ten points of accuracy or more."
)
"""Said where there are images and nothing is repaired."""
FAMILY_COLUMNS = (
    label("title", "Family"),
    Column("before", "Before"),
    Column("after", "After"),
    label("locked", "Locked because"),
)


@guarded
@unfolded
def prune(
    models: options.Models,
    output: options.Output = None,
    *,
    settings: Annotated[PruneSettings, Section("prune")],
    ignore: options.Ignore = None,
    rule: options.Rule = None,
    dry_run: options.DryRun = False,
    model_file: options.ModelFile,
    data: options.KnownData,
    dataset: str | None = None,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Remove the least important channels until a target is met; MODEL becomes MODEL.pruned-2x.safetensors.

    To set weights to zero without changing any shape, use `metaprune sparsify`.
    """
    settings = with_rules(settings, ignore or (), rule or ())
    if data is None and settings.needs_images:
        data = DataSettings()
    source = model_file.source()
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
    show({"dry_run": dry_run, "models": rows}, *tables, *_held(pruned), as_json=as_json)
    if not quiet and any(model.route == "program" for model in pruned):
        print_note(PROGRAM)
    if not quiet and pruned[0].as_task is not None:
        print_note(stage.ranked_for_task(pruned[0].criterion, pruned[0].scope, pruned[0].as_task))
    if not quiet and dataset is not None and settings.repair == "none":
        print_note(UNREPAIRED)


def with_rules(settings: PruneSettings, ignore: Sequence[str], rules: Sequence[str]) -> PruneSettings:
    """The settings with the command line's rules after those of params.yaml.

    Raises:
        InputError: a rule cannot be read.
    """
    texts = [*rules, *(f"{match}: ignore" for match in ignore)]
    further = parse(PruneSettings, {"rules": pruning_rules(texts)}, section="prune", where="the options").rules
    return replace(settings, rules=settings.rules + further)


def _held(pruned: Sequence[PrunedFile]) -> list[Table]:
    """What had to be locked for the plans to be carried out, if anything."""
    rows = [{"model": model.output or model.input, **asdict(held)} for model in pruned for held in model.held]
    title = "Locked, since what is left would not run or not be the same without these units"
    return [Table(title, HELD_COLUMNS, rows)] if rows else []


def _plans(pruned: Sequence[PrunedFile]) -> list[Table]:
    """One table for each plan: what every family would lose."""
    return [
        Table(
            f"{model.input}: {times(model.achieved)} (asked: {times(model.requested)}), "
            f"{count(model.macs_before)} → {count(model.macs_after)} MACs, "
            f"{count(model.params_before)} → {count(model.params_after)} parameters",
            FAMILY_COLUMNS,
            [asdict(family) | {"title": family.title} for family in model.families],
        )
        for model in pruned
    ]
