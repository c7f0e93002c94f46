"""``metaprune decode``: neuron graphs → models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import unfolded
from metaprune_cli.console.figures import count
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

COLUMNS = (label("output", "Model"), label("architecture", "Architecture"), Column("params", "Params", count))


@guarded
@unfolded
def decode(
    graphs: Annotated[list[Path], typer.Argument(metavar="GRAPH...", help="Graph files, or folders of them.")],
    output: options.Output = None,
    allow_import: options.AllowImport = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Convert neuron graphs back to models, bit for bit; GRAPH.graph becomes GRAPH.decoded.safetensors."""
    source = options.ModelFile(allow_import=allow_import).source()
    from metaprune_cli.stages import decode as stage

    with listening(quiet) as progress:
        models = stage.decode(graphs, output, source=source, progress=progress)
    rows = [asdict(model) for model in models]
    show({"models": rows}, Table("", COLUMNS, rows), as_json=as_json)
