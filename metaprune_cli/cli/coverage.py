"""``metaprune coverage``: every claim on every model of a suite."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import CoverageSettings
from metaprune_cli.config.flags import MODELS, OUTPUT, RUN
from metaprune_cli.console.progress import listening
from metaprune_cli.errors import TargetError


@guarded
@unfolded
def coverage(
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            rich_help_panel=MODELS,
            metavar="NAME|FILE",
            help="torchvision (all of it), transformers, timm, segmentation, detection, diffusion, "
            "audio, medical, graphs, or a YAML or Python file of your own models.",
        ),
    ] = "torchvision",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", rich_help_panel=MODELS, metavar="GLOB", help="Only models whose names match; may be repeated."
        ),
    ] = None,
    *,
    settings: Annotated[CoverageSettings, Section("coverage")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            rich_help_panel=OUTPUT,
            metavar="FILE",
            help="JSON file for the results; rows already in it are kept.",
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", rich_help_panel=OUTPUT, metavar="FILE", help="Write a report in Markdown."),
    ] = None,
    allow_import: Annotated[
        bool,
        typer.Option(
            "--allow-import", rich_help_panel=MODELS, help="Allow a Python file to be run to read its MODELS table."
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", rich_help_panel=RUN, help="Test every model again.")] = False,
    params: options.Params = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Test metaprune on every model of a suite: encode, prune, train, save, load, compare. Exit code 3 if one fails."""
    from metaprune_cli.stages import coverage as stage
    from metaprune_cli.workflows.coverage import report

    with listening(quiet) as progress:
        found = stage.coverage(
            suite,
            settings,
            only=only or (),
            output=output,
            markdown=markdown,
            command=shlex.join(["metaprune", *sys.argv[1:]]),
            progress=progress,
            fresh=fresh,
            allow_import=allow_import,
        )
    show(found.to_document(), *report.tables(found.rows), as_json=as_json)
    if found.failed:
        raise TargetError(
            f"{found.failed} of {len(found.rows)} models failed.",
            expected="every model ok, or partly with its reasons",
            got=", ".join(row["name"] for row in found.rows if row["status"] == "failed"),
            where=output,
        )
