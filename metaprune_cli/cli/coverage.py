"""``metaprune coverage``: every claim on every model of a suite."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.config import CoverageSettings
from metaprune_cli.console.progress import listening
from metaprune_cli.errors import TargetError


@guarded
def coverage(
    suite: Annotated[
        str,
        typer.Option(
            "--suite", metavar="torchvision|FILE", help="All of torchvision, or your models: a YAML or Python file."
        ),
    ] = "torchvision",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="GLOB", help="Only models of such names; may be repeated.")
    ] = None,
    speedup: Annotated[
        list[float] | None,
        typer.Option("--speedup", "-s", metavar="X", help="MACs before / after; may be repeated. Default: 1.5 and 3."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="JSON; rows in it are not made again."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="The report for people.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make all rows again.")] = False,
    max_ratio: Annotated[
        float | None, typer.Option("--max-ratio", metavar="R", help="Most of a family that may go. Default: 0.95.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="N", help="Smaller images, to be quicker, for models that take them."),
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", metavar="N", help="Models at a time. Default: 1.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="For one model. Default: 3600.")
    ] = None,
    memory: Annotated[float | None, typer.Option("--memory", metavar="GB", help="For one model. Default: 20.")] = None,
    params: options.Params = None,
    seed: options.Seed = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Encode, decode, prune, run, train, save, load and compare every model of a suite; exit code 3 if one fails."""
    settings = options.settings(
        CoverageSettings,
        "coverage",
        params,
        speedup=speedup or None,
        max_ratio=max_ratio,
        image_size=image_size,
        jobs=jobs,
        timeout_s=timeout,
        memory_gb=memory,
        seed=seed,
    )
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
        )
    show(found.to_document(), *report.tables(found.rows), as_json=as_json)
    if found.failed:
        raise TargetError(
            f"{found.failed} of {len(found.rows)} models failed.",
            expected="every model ok, or partly with its reasons",
            got=", ".join(row["name"] for row in found.rows if row["status"] == "failed"),
            where=output,
        )
