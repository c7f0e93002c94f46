"""``metaprune inspect``: what is in an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import unfolded
from metaprune_cli.config.flags import OUTPUT
from metaprune_cli.console.figures import by, count, plain, share
from metaprune_cli.console.table import Column, Table, label

if TYPE_CHECKING:
    from metaprune_cli.stages.inspect import Inspection


FACTS = (label("name", ""), label("text", ""))
TENSORS = (label("name", "Tensor"), label("dtype", "Type"), Column("shape", "Shape", by, right=False))


def _number(things: Sequence[str]) -> str:
    return str(len(things))


FAMILIES = (
    label("name", "Family"),
    label("kind", "Kind"),
    Column("units", "Units"),
    Column("removable", "Can go"),
    Column("parameters", "Touches", _number, minor=True),
    Column("params_saved", "Parameters", count, minor=True),
    Column("params_share", "of all", share, minor=True),
    Column("macs_saved", "MACs", count),
    Column("macs_share", "of all", share),
    label("locked", "Locked because"),
)
LAYERS = (
    label("name", "Layer"),
    Column("before", "Channels before"),
    Column("width", "now"),
    Column("macs", "MACs", count),
    Column("macs_share", "of all", share),
)
SAVINGS = "Families, and what the model saves if one alone shrinks as far as it can (a locked one: if it could)"
ZEROED = (
    label("name", "Entry"),
    Column("values", "Values"),
    Column("kept", "Not zero"),
    Column("share", "Zero", share),
)
WIDTHS = (label("families", "Family"), Column("units", "Units"), label("grid", "Numbers that may stay"))
VERBATIM = (label("name", "Kept as it is"), label("reason", "Because"))


@guarded
@unfolded
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Any file written by metaprune: a model, a graph, a checkpoint, a metanetwork …"
        ),
    ],
    draw: Annotated[
        Path | None,
        typer.Option(
            "--draw",
            rich_help_panel=OUTPUT,
            metavar="FILE",
            help="Draw a model or a neuron graph. FILE.png: each layer's width and share of the "
            "multiply-adds; FILE.svg: the layers and how they are coupled.",
        ),
    ] = None,
    allow_import: options.AllowImport = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what is in a file written by metaprune, after checking its digest."""
    from metaprune_cli.stages import inspect as stage

    source = options.ModelFile(allow_import=allow_import).source() if draw is not None else None
    found = stage.inspect(file, draw, source)
    show(asdict(found), *_tables(found), as_json=as_json)


def _tables(found: Inspection) -> Iterator[Table]:
    """What it is, what was done, what can be removed, what is stored."""
    yield Table(f"{found.path}: {found.kind}", FACTS, [{"name": name, "text": text} for name, text in _facts(found)])
    if found.document.get("lineage"):
        rows = [_step(step) for step in found.document["lineage"]]
        yield Table("Lineage", (label("command", "Step"), label("input", "Input"), label("figures", "Figures")), rows)
    if found.graph is not None:
        yield Table(SAVINGS, FAMILIES, found.graph["families"])
        if verbatim := found.graph["verbatim"]:
            yield Table("", VERBATIM, [{"name": name, "reason": reason} for name, reason in verbatim.items()])
    if found.layers is not None:
        rows = [asdict(layer) | {"before": layer.before or layer.width} for layer in found.layers]
        yield Table("Layers", LAYERS, rows)
    if found.kind == "hypernetwork":
        yield Table("Widths", WIDTHS, list(_widths(found.document)))
    if found.zeros is not None:
        rows = [asdict(entry) | {"share": 1 - entry.kept / max(entry.values, 1)} for entry in found.zeros]
        yield Table("Zeros, which finetuning keeps", ZEROED, rows)
    yield Table("Tensors", TENSORS, [asdict(tensor) for tensor in found.tensors])


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "format version", str(found.format_version)
    yield "digest", f"{found.digest} (checked)"
    yield "size", f"{found.bytes} bytes, {len(found.tensors)} tensors, {count(found.values)} values"
    made_by = dict(found.document.get("made_by") or {})
    sections = {"made by": made_by, "settings": made_by.pop("parameters", {})}
    named = ("architecture", "preprocessing", "config", "sampling", "metrics", "inputs")
    sections |= {name: found.document.get(name) or {} for name in named}
    yield from (
        (f"{name}: {key}", _words(value)) for name, section in sections.items() for key, value in section.items()
    )
    if found.kind == "model" and not sections["preprocessing"]:
        yield "preprocessing", "as the data set has it"
    if found.graph is not None:
        yield from _graph_facts(found.graph)
    if found.zeros is not None:
        kept, values = (sum(getattr(entry, name) for entry in found.zeros) for name in ("kept", "values"))
        words = " ".join(word for word in (found.document["zeros"]["kind"], found.document["zeros"]["pattern"]) if word)
        yield "zeros", f"{words}: {count(values - kept)} of {count(values)} weights in {len(found.zeros)} entries"
    if found.drawing is not None:
        yield "drawn", found.drawing


def _widths(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The families of every gene, and how many units of each may stay."""
    families = document["signature"]
    for gene in document["genes"]:
        own = [families[number] for number in gene["families"] if number < len(families)]
        names, sizes = [family["name"] for family in own], {family["units"] for family in own}
        yield {"families": ", ".join(names), "units": max(sizes, default=0), "grid": _words(gene["grid"])}


def _graph_facts(graph: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    families = graph["families"]
    locked = sum(family["locked"] is not None for family in families)
    removable = sum(family["removable"] for family in families)
    yield "graph", f"{graph['neurons']} neurons, {count(graph['edges'])} edges, {count(graph['macs'])} MACs"
    yield "units", f"{graph['units']} in {len(families)} families, {removable} of them can go"
    yield "locked", f"{locked} of {len(families)} families"


def _words(value: Any) -> str:
    """A JSON value on one line, without its punctuation."""
    if value is None or value == []:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(_words(item) for item in value)
    return plain(value)


def _step(step: dict[str, Any]) -> dict[str, Any]:
    figures = {key: value for key, value in step.items() if key not in ("command", "input")}
    return {"command": step["command"], "input": step.get("input"), "figures": _words(figures)}
