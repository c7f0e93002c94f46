"""``metaprune compress``: a model and images in; a smaller model, an export and a verdict out."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import CompressSettings, DataSettings, ExportSettings, OptimSettings, PruneSettings
from metaprune_cli.config.compressing import REPAIR, repair_images
from metaprune_cli.config.data import AUGMENTED, USUALLY
from metaprune_cli.config.flags import OUTPUT
from metaprune_cli.console.figures import count
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Table, label

if TYPE_CHECKING:
    from metaprune_cli.workflows.compressed import Compressed, Smaller

FILES = (label("what", ""), label("file", "File"))
PLAN = (label("step", "Step"), label("does", "Does"), label("time", "Takes"))


@guarded
@unfolded
def compress(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="Your model: a weights file, a file written by metaprune, or a Hugging Face folder.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for all results. Default: MODEL.compressed, next to the model.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    *,
    settings: Annotated[CompressSettings, Section("compress")],
    pruning: Annotated[
        PruneSettings,
        Section(
            "prune",
            only=("speedup", "criterion", "scope", "max_ratio", "repair", "search"),
            help={
                "repair": "Restore accuracy without training: fit what is left to what the original model "
                "computed on images. Default: least-squares if images are given."
            },
        ),
    ],
    repair: str | None = None,
    criterion: str | None = None,
    scope: str | None = None,
    training: Annotated[
        OptimSettings,
        Section("finetune", only=("epochs", "lr"), help={"epochs": "Epochs of finetuning; 0: no training."}),
    ],
    exporting: Annotated[ExportSettings, Section("export", only=("format",))],
    data: Annotated[
        DataSettings | None,
        Section(
            "data",
            only=options.DATA | {"augment": "augment"},
            help={
                "dataset": "The data set. Default: imagefolder with --data-root, otherwise none.",
                "augment": "Augmentation of training images: shifts (crop) and mirroring (flip). Default: "
                "crop-flip; for digits none, for svhn crop.",
            },
            if_said=True,
        ),
    ],
    dataset: str | None = None,
    data_root: Path | None = None,
    augment: str | None = None,
    task: str | None = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the plan and an estimate of the time; run nothing.", rich_help_panel=OUTPUT
        ),
    ] = False,
    model_file: options.ModelFile,
    log: options.Log = None,
    device: options.Device = "auto",
    seed: options.Seed = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Prune, repair, finetune, evaluate and export a model in one call; results go to MODEL.compressed.

    Run it again after an interruption and it continues where it stopped. It does not read params.yaml.
    """
    if data is not None:
        data = _images(data, dataset, data_root, augment, task)
    if data is not None and repair is None:
        pruning = replace(pruning, repair=REPAIR, repair_images=repair_images(data))
    source = model_file.source()
    from metaprune_cli.stages import compress as stage
    from metaprune_cli.workflows.device import pick_device
    from metaprune_cli.workflows.logs import logged

    with listening(quiet) as shown, logged(shown, log) as progress:
        done = stage.compress(
            model,
            output,
            settings,
            pruning=replace(pruning, seed=seed or 0),
            training=training,
            exporting=exporting,
            source=source,
            data=data,
            seed=seed or 0,
            device=pick_device(device),
            progress=progress,
            dry_run=dry_run,
            command=shlex.join(["metaprune", *sys.argv[1:]]),
        )
    tables = [_plan(done)] if dry_run else [_files(one, done) for one in done.models]
    show(done.to_document(), *tables, as_json=as_json)
    if not quiet:
        for note in done.notes:
            print_note(note)


def _images(
    data: DataSettings, dataset: str | None, data_root: Path | None, augment: str | None, task: str | None
) -> DataSettings | None:
    """Which images are meant, varied as is usual for them; where none are named there are none."""
    if dataset is None and data_root is None and task is None:
        return None
    if augment is None and task is None:
        data = replace(data, augment=AUGMENTED.get(data.dataset, USUALLY))
    return data


def _plan(done: Compressed) -> Table:
    from metaprune_cli.workflows.verdict import duration

    known = [part.seconds for part in done.plan if part.seconds is not None]
    total = f", of which training takes about {duration(sum(known))}" if known else ""
    rows = [
        {**part.to_document(), "time": "" if part.seconds is None else f"about {duration(part.seconds)}"}
        for part in done.plan
    ]
    return Table(f"{len(rows)} steps into {done.folder}{total}", PLAN, rows)


def _files(one: Smaller, done: Compressed) -> Table:
    """The verdict, and where everything is."""
    rows = [{"what": "smaller model", "file": str(one.output)}]
    rows += [{"what": "export", "file": str(path)} for path in one.exports]
    rows += [] if done.report is None else [{"what": "report", "file": str(done.report)}]
    rows += [{"what": "parameters", "file": f"{count(one.params[0])} → {count(one.params[1])}"}]
    return Table(one.verdict.in_words(), FILES, rows)
