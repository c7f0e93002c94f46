"""``metaprune dhp``: training with generated weights, whose latents shrink until the targets are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.prune import with_rules
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import DhpSettings, OptimSettings, PruneSettings
from metaprune_cli.config.flags import WHAT_GOES
from metaprune_cli.config_loader import parse
from metaprune_cli.console.figures import count, times
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label


@guarded
@unfolded
def dhp(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Model files, or folders of models written by metaprune. Without any: a new model of --arch.",
            show_default=False,
        ),
    ] = None,
    output: options.Output = None,
    *,
    settings: Annotated[DhpSettings, Section("dhp")],
    speedup: Annotated[
        list[str] | None,
        typer.Option(
            "--speedup",
            "-s",
            metavar="X",
            rich_help_panel=WHAT_GOES,
            help="MACs before / MACs after. One training run can reach several: 2,3,4. Default: 2, or prune.speedup.",
        ),
    ] = None,
    pruning: Annotated[PruneSettings, Section("prune", only=("max_ratio", "round_to", "keep_heads", "route"))],
    ignore: options.Ignore = None,
    rule: options.Rule = None,
    training: Annotated[
        OptimSettings, Section("finetune", only=("optimizer", "lr", "schedule", "precision", "recalibrate", "ema"))
    ],
    teacher: options.Teacher = None,
    resume: options.Resume = False,
    jobs: options.Jobs = 1,
    ddp: options.Ddp = False,
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
    """Train while channels shrink away, until the target is met (DHP); MODEL becomes MODEL.dhp-2x.safetensors.

    One training run reaches all targets and saves a model at each; `metaprune finetune` trains them further. What may
    be removed is set in section prune of params.yaml, everything else about the training in section finetune.
    """
    pruning = with_rules(_to_speedups(pruning, speedup or ()), ignore or (), rule or ())
    source = model_file.source()
    from metaprune_cli.stages import dhp as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.logs import logged
    from metaprune_cli.workflows.ranks import ranks_on

    where = pick_device(device)
    with (
        ranks_on(where) as ranks,
        listening(quiet or not ranks.first) as shown,
        logged(shown, log if ranks.first or not ddp else None, jobs=jobs) as progress,
    ):
        done = stage.dhp(
            models or (),
            output,
            settings,
            pruning=pruning,
            training=training,
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
        rows, metric = [row for model in done for row in model.to_documents()], done[0].metric
        columns = (
            label("output", "Model"),
            Column("requested", "Asked", times),
            Column("achieved", "Achieved", times),
            Column("macs", "MACs", count),
            Column("params", "Params", count),
            Column("epochs", "Epochs"),
            Column(f"whole_{metric.key}", f"Validation {metric.in_title}, before conversion", metric.write),
            Column(f"val_{metric.key}", "after", metric.write),
        )
        show({"models": rows}, Table("", columns, rows), as_json=as_json)


def _to_speedups(settings: PruneSettings, texts: Sequence[str]) -> PruneSettings:
    """The settings with the speed-ups of the command line, each of which may be several.

    Raises:
        InputError: one is no number above 1.
    """
    said = [part.strip() for text in texts for part in text.split(",")]
    if not said:
        return settings
    found = parse(PruneSettings, {"speedup": said}, section="prune", where="the options").speedup
    return replace(settings, speedup=found, target=())
