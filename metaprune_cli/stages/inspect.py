"""What is in an artifact, its digest checked; nothing is written but the drawing, where one is asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metaprune_cli.artifacts import Artifact, read_artifact
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.drawing.svg import MARK, draw
from metaprune_cli.graph.parts import is_structure
from metaprune_cli.reports.layers import LayerFigures, layers_of
from metaprune_cli.reports.layers import draw as draw_layers
from metaprune_cli.reports.png import check_drawing, write_drawing
from metaprune_cli.workflows.loading import ModelSource, open_model
from metaprune_cli.workflows.paths import Rendering, stem
from metaprune_cli.workflows.zeros import KEY, Zeros

DRAWING = Rendering("drawing", ".svg", MARK)
DRAWN = ("graph", "model")
"""The kinds of artifacts that can be drawn."""


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EntryZeros:
    """One entry whose zeros are meant to stay."""

    name: str
    values: int
    kept: int


@dataclass(frozen=True)
class Inspection:
    """Everything an artifact says about itself.

    Attributes:
        path: the file.
        kind: what it is.
        format_version: of the file format.
        digest: over all its bytes, checked.
        bytes: size of the file.
        values: number of tensor elements.
        document: the rest of its document: architecture, made_by, inputs, metrics, lineage, …
        tensors: names, types and shapes.
        graph: sizes, families with their figures and locks, and what is kept verbatim; for neuron graphs.
        drawing: where it was drawn.
        layers: what a picture of the layers shows; None where there is none.
        zeros: of a sparse model or its graph: for each sparse entry its values, and how many of them are not zero.
    """

    path: str
    kind: str
    format_version: int
    digest: str
    bytes: int
    values: int
    document: Mapping[str, Any]
    tensors: tuple[TensorSummary, ...]
    graph: Mapping[str, Any] | None
    drawing: str | None
    layers: tuple[LayerFigures, ...] | None
    zeros: tuple[EntryZeros, ...] | None


_SHOWN_APART = ("kind", "format_version", "digest", "structure")


def inspect(path: Path, drawing: Path | None = None, source: ModelSource | None = None) -> Inspection:
    """Read any artifact and describe it.

    Args:
        path: the file.
        drawing: where to draw a graph, or a model, which is traced for that: a PNG file gets each layer's width and its
            share of the multiply-adds, an SVG file the graph of layers and couplings.
        source: how a model that is to be drawn is opened.

    Raises:
        InputError: there is no such file; or it cannot be drawn, or not there.
        CorruptFileError: it is damaged, not an artifact, or of an unknown version or kind.
    """
    if drawing is not None and drawing.suffix.lower() == DRAWING.suffix:
        DRAWING.check(drawing, "--draw")
    else:
        check_drawing(drawing)
    artifact = read_artifact(path, wanted=_wanted)
    graph = _graph(artifact) if artifact.kind == "graph" else None
    layers = None if drawing is None else _draw(graph, artifact, drawing, source or ModelSource())
    return Inspection(
        path=str(path),
        kind=artifact.kind,
        format_version=artifact.version,
        digest=artifact.digest,
        bytes=path.stat().st_size,
        values=sum(tensor.numel() for tensor in artifact.tensors.values()),
        document={key: value for key, value in artifact.document.items() if key not in _SHOWN_APART},
        tensors=tuple(_tensor(name, tensor) for name, tensor in sorted(artifact.tensors.items())),
        graph=None if graph is None else graph.summary(),
        drawing=None if drawing is None else str(drawing),
        layers=layers,
        zeros=_zeros(artifact, artifact.tensors if graph is None else graph.tensors),
    )


def _wanted(document: Mapping[str, Any], name: str) -> bool:
    """The values that are looked at: the structure of a graph, and all of what is sparse, whose zeros are counted."""
    return is_structure(name) or KEY in document


def _draw(
    graph: NeuronGraph | None, artifact: Artifact, target: Path, source: ModelSource
) -> tuple[LayerFigures, ...] | None:
    """Draw a graph, or a model's; the figures of its layers, where these are what was drawn."""
    if artifact.kind not in DRAWN:
        raise InputError(
            "Only models and neuron graphs can be drawn.",
            expected=f"an artifact of kind {' or '.join(DRAWN)}",
            got=f"kind {artifact.kind}",
            where=artifact.path,
            next_step="leave --draw out",
        )
    graph = graph or open_model(Path(artifact.path), source).neuron_graph()
    name = stem(Path(artifact.path))
    if target.suffix.lower() == DRAWING.suffix:
        DRAWING.write(target, draw(graph, name))
        return None
    layers = layers_of(graph, artifact.document.get("pruning"))
    write_drawing(target, functools.partial(draw_layers, layers, name))
    return layers


def _tensor(name: str, tensor: Tensor) -> TensorSummary:
    return TensorSummary(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def _zeros(artifact: Artifact, tensors: Mapping[str, Tensor]) -> tuple[EntryZeros, ...] | None:
    zeros = Zeros.of(artifact.document)
    if zeros is None:
        return None
    return tuple(
        EntryZeros(name, tensor.numel(), int(tensor.count_nonzero()))
        for name, tensor in sorted(tensors.items())
        if name in zeros.entries
    )


def _graph(artifact: Artifact) -> NeuronGraph:
    return NeuronGraph.from_parts(artifact.tensors, artifact.document["structure"], artifact.path)
