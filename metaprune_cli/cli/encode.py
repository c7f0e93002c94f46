"""``metaprune encode``: models → neuron graphs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import EncodeSettings
from metaprune_cli.console.figures import count
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label

COLUMNS = (
    label("output", "Graph"),
    Column("neurons", "Neurons"),
    Column("edges", "Edges", count),
    Column("families", "Families"),
    Column("locked", "Locked"),
    Column("macs", "MACs", count),
)


@guarded
@unfolded
def encode(
    models: options.Models,
    output: options.Output = None,
    *,
    settings: Annotated[EncodeSettings, Section("encode")],
    model_file: options.ModelFile,
    data: options.KnownData,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Convert models to neuron graphs; MODEL becomes MODEL.graph.safetensors."""
    source = model_file.source()
    from metaprune_cli.stages import encode as stage
    from metaprune_cli.workflows.device import pick_device

    with listening(quiet) as progress:
        graphs = stage.encode(
            models, output, settings, source=source, data=data, device=pick_device(device), progress=progress
        )
    rows = [asdict(graph) for graph in graphs]
    show({"graphs": rows}, Table("", COLUMNS, rows), as_json=as_json)
