"""``metaprune encode``: models → neuron graphs."""

from __future__ import annotations

from dataclasses import asdict

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
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
def encode(
    models: options.Models,
    output: options.Output = None,
    arch: options.Arch = None,
    arch_arg: options.ArchArgs = None,
    input_shape: options.InputShape = None,
    trust_pickle: options.TrustPickle = False,
    allow_import: options.AllowImport = False,
    dataset: options.Dataset = None,
    data_root: options.DataRoot = None,
    params: options.Params = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Turn models into neuron graphs; MODEL is turned into MODEL.graph.safetensors."""
    source = options.model_source(arch, arch_arg, input_shape, trust_pickle, allow_import)
    data = options.known_data(params, dataset, data_root)
    from metaprune_cli.stages import encode as stage

    with listening(quiet) as progress:
        graphs = stage.encode(models, output, source=source, data=data, progress=progress)
    rows = [asdict(graph) for graph in graphs]
    show({"graphs": rows}, Table("", COLUMNS, rows), as_json=as_json)
