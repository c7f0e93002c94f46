"""``metaprune export``: models → files for PyTorch, ONNX Runtime and others, without metaprune."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import ExportSettings
from metaprune_cli.console.figures import count, scientific
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label


def _batch(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))


COLUMNS = (
    label("output", "File"),
    label("format", "Format"),
    Column("bytes", "Bytes", count),
    label("takes", "Batch"),
    Column("error", "Error", scientific),
    Column("batches", "checked at", _batch),
)


@guarded
@unfolded
def export(
    models: options.Models,
    output: options.Output = None,
    *,
    settings: Annotated[ExportSettings, Section("export")],
    model_file: options.ModelFile,
    data: options.Shape,
    params: options.Params = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Export models for use without metaprune: MODEL.weights.safetensors, MODEL.pt2, MODEL.onnx, MODEL.ts.pt, MODEL.hf.

    Every file is read back, run, and compared with the model before it is kept.
    """
    settings = replace(settings, format=tuple(dict.fromkeys(settings.format)))
    source = model_file.source()
    from metaprune_cli.stages import export as stage

    with listening(quiet) as progress:
        exported = stage.export(models, output, settings, source=source, data=data, progress=progress)
    rows = [asdict(file) for file in exported]
    shown = [row | {"takes": "any" if row["batch"] is None else str(row["batch"])} for row in rows]
    show({"exports": rows}, Table("", COLUMNS, shown), as_json=as_json)
    for file in exported:
        if not file.telling and not quiet:
            print_note(f"{file.output}: the model's outputs do not depend on its inputs, so the check says nothing.")
        if file.format == "safetensors" and file.route == "program" and not quiet:
            print_note(f"{file.output}: these are weights alone, of a model that is a program: see docs/deploy.md.")
