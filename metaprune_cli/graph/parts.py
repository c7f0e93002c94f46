"""A neuron graph as flat parts, named tensors and one JSON document, and back; this is what its file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.checks import check_extents, check_indices
from metaprune_cli.graph.neuron_graph import EdgeBlock, Feature, Layer, Lock, NeuronGraph, Product, Span

_STATE, _INDEX = "state.", "structure."
NO_PAIRS = torch.empty(2, 0, dtype=torch.int64)
"""What a graph written before there were heads has in the plane of rows."""


def to_parts(graph: NeuronGraph) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (the state dict under ``state.``, index lists under ``structure.``) and a JSON-ready document.

    Aliases of shared tensors are stored once. An index list that is a plain range is two numbers in the document.
    """
    tensors = {_STATE + name: t for name, t in graph.tensors.items() if name not in graph.aliases}

    def pack(key: str, index: Tensor) -> dict[str, Any]:
        flat = index.reshape(-1)
        start, count = (int(flat[0]) if flat.numel() else 0), flat.numel()
        shape = list(index.shape)
        if torch.equal(flat, torch.arange(start, start + count)):
            return {"start": start, "shape": shape}
        tensors[_INDEX + key] = flat.to(torch.int32 if count and int(flat.max()) < 2**31 else torch.int64)
        return {"tensor": key, "shape": shape}

    document: dict[str, Any] = {
        "layers": [[layer.name, layer.start, layer.size] for layer in graph.layers],
        "blocks": [
            {
                "param": block.param,
                "size": list(block.size),
                "stride": list(block.stride),
                "offset": block.offset,
                "kernel": list(block.kernel),
                "positions": block.positions,
                "destinations": pack(f"blocks.{i}.destinations", block.destinations),
                "sources": pack(f"blocks.{i}.sources", block.sources),
            }
            for i, block in enumerate(graph.blocks)
        ],
        "features": [
            {
                "name": feature.name,
                "kind": feature.kind,
                "elements": pack(f"features.{i}.elements", feature.elements),
                "neurons": pack(f"features.{i}.neurons", feature.neurons),
            }
            for i, feature in enumerate(graph.features)
        ],
        "identity": pack("identity", graph.identity),
        "ties": pack("ties", graph.ties),
        "columns": pack("columns", graph.columns),
        "rows": pack("rows", graph.rows),
        "heads": pack("heads", graph.heads),
        "products": [
            {"neurons": pack(f"products.{i}", p.neurons), "macs_per_neuron": p.macs_per_neuron}
            for i, p in enumerate(graph.products)
        ],
        "locks": [
            {"neurons": pack(f"locks.{i}", k.neurons), "reason": k.reason, "plane": k.plane}
            for i, k in enumerate(graph.locks)
        ],
        "spans": [
            {"neurons": pack(f"spans.{i}", s.neurons), "operator": s.operator} for i, s in enumerate(graph.spans)
        ],
        "verbatim": dict(graph.verbatim),
        "aliases": dict(graph.aliases),
        "trainable": sorted(graph.trainable),
        "entries": list(graph.tensors),
    }
    return tensors, document


def from_parts(
    tensors: Mapping[str, Tensor], document: Mapping[str, Any], where: str | PathLike[str] | None = None
) -> NeuronGraph:
    """The inverse of :func:`to_parts`; nothing in the parts is trusted.

    Args:
        tensors: as they were stored; those of other names are left alone.
        document: the structure, which has passed its schema (``artifacts/schemas/graph.py``).
        where: the file, for messages.

    Raises:
        CorruptFileError: an index is outside what it points into, or elements are not edges, features or verbatim once.
    """
    state, index = (_below(prefix, tensors) for prefix in (_STATE, _INDEX))
    check_extents(state, index, document, where)
    graph = _joined(state, index, document)
    check_indices(graph, where)
    return graph


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _joined(stored: Mapping[str, Tensor], index: Mapping[str, Tensor], document: Mapping[str, Any]) -> NeuronGraph:
    def unpack(packed: Mapping[str, Any]) -> Tensor:
        shape: Sequence[int] = packed["shape"]
        if packed.get("tensor") is not None:
            return index[packed["tensor"]].to(torch.int64).view(shape)
        count = torch.Size(shape).numel()
        return torch.arange(packed["start"], packed["start"] + count).view(shape)

    aliases = document["aliases"]
    state = {name: stored[aliases.get(name, name)] for name in document["entries"]}
    columns, rows, heads = (document.get(name) for name in ("columns", "rows", "heads"))
    return NeuronGraph(
        layers=tuple(Layer(*layer) for layer in document["layers"]),
        blocks=tuple(
            EdgeBlock(
                param=b["param"],
                size=(b["size"][0], b["size"][1], b["size"][2], b["size"][3]),
                stride=(b["stride"][0], b["stride"][1], b["stride"][2], b["stride"][3]),
                offset=b["offset"],
                destinations=unpack(b["destinations"]),
                sources=unpack(b["sources"]),
                kernel=tuple(b["kernel"]),
                positions=b["positions"],
            )
            for b in document["blocks"]
        ),
        features=tuple(
            Feature(f["name"], f["kind"], unpack(f["elements"]), unpack(f["neurons"])) for f in document["features"]
        ),
        identity=unpack(document["identity"]),
        ties=unpack(document["ties"]),
        columns=NO_PAIRS if columns is None else unpack(columns),
        rows=NO_PAIRS if rows is None else unpack(rows),
        heads=NO_PAIRS[0] if heads is None else unpack(heads),
        products=tuple(Product(unpack(p["neurons"]), p["macs_per_neuron"]) for p in document["products"]),
        locks=tuple(Lock(unpack(k["neurons"]), k["reason"], k.get("plane", "both")) for k in document["locks"]),
        spans=tuple(Span(unpack(s["neurons"]), s["operator"]) for s in document["spans"]),
        verbatim=document["verbatim"],
        aliases=aliases,
        trainable=frozenset(document["trainable"]),
        tensors=state,
    )


def is_structure(name: str) -> bool:
    """Whether a tensor of the parts is an index list, not an entry of the state dict."""
    return name.startswith(_INDEX)
