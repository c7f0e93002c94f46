"""What is in an artifact; nothing is written, and the digest is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metaprune_cli.artifacts import Artifact, read_artifact
from metaprune_cli.graph import NeuronGraph


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]


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
        graph: sizes, families with their locks, and what is kept verbatim; for neuron graphs.
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


_SHOWN_APART = ("kind", "format_version", "digest", "structure")


def inspect(path: Path) -> Inspection:
    """Read any artifact and describe it.

    Raises:
        InputError: there is no such file.
        CorruptFileError: it is damaged, not an artifact, or of an unknown version or kind.
    """
    artifact = read_artifact(path)
    return Inspection(
        path=str(path),
        kind=artifact.kind,
        format_version=artifact.version,
        digest=artifact.digest,
        bytes=path.stat().st_size,
        values=sum(tensor.numel() for tensor in artifact.tensors.values()),
        document={key: value for key, value in artifact.document.items() if key not in _SHOWN_APART},
        tensors=tuple(_tensor(name, tensor) for name, tensor in sorted(artifact.tensors.items())),
        graph=_graph(artifact) if artifact.kind == "graph" else None,
    )


def _tensor(name: str, tensor: Tensor) -> TensorSummary:
    return TensorSummary(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def _graph(artifact: Artifact) -> Mapping[str, Any]:
    return NeuronGraph.from_parts(artifact.tensors, artifact.document["structure"]).summary()
