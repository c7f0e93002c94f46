"""A neuron graph as flat parts, named tensors and one JSON document, and back; this is what its file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.checks import check_extents, check_indices
from metaprune_cli.graph.structure import EdgeBlock, Feature, Layer, Lock, Product, Span, Structure

_STATE, _INDEX, EVIDENCE = "state.", "structure.", "evidence."
NO_PAIRS = torch.empty(2, 0, dtype=torch.int64)
"""What a graph written before there were heads has in the plane of rows."""


def to_parts(structure: Structure, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (the state dict under ``state.``, index lists under ``structure.``) and a JSON-ready document.

    Aliases of shared tensors are stored once. An index list that is a plain range is two numbers in the document.
    """
    tensors = {_STATE + name: t for name, t in state.items() if name not in structure.aliases}

    def pack(key: str, index: Tensor) -> dict[str, Any]:
        flat = index.reshape(-1)
        start, count = (int(flat[0]) if flat.numel() else 0), flat.numel()
        shape = list(index.shape)
        if torch.equal(flat, torch.arange(start, start + count)):
            return {"start": start, "shape": shape}
        tensors[_INDEX + key] = flat.to(torch.int32 if count and int(flat.max()) < 2**31 else torch.int64)
        return {"tensor": key, "shape": shape}

    document: dict[str, Any] = {
        "layers": [[layer.name, layer.start, layer.size] for layer in structure.layers],
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
            for i, block in enumerate(structure.blocks)
        ],
        "features": [
            {
                "name": feature.name,
                "kind": feature.kind,
                "elements": pack(f"features.{i}.elements", feature.elements),
                "neurons": pack(f"features.{i}.neurons", feature.neurons),
            }
            for i, feature in enumerate(structure.features)
        ],
        "identity": pack("identity", structure.identity),
        "ties": pack("ties", structure.ties),
        "columns": pack("columns", structure.columns),
        "rows": pack("rows", structure.rows),
        "heads": pack("heads", structure.heads),
        "products": [
            {"neurons": pack(f"products.{i}", p.neurons), "macs_per_neuron": p.macs_per_neuron}
            for i, p in enumerate(structure.products)
        ],
        "locks": [
            {"neurons": pack(f"locks.{i}", k.neurons), "reason": k.reason, "plane": k.plane}
            for i, k in enumerate(structure.locks)
        ],
        "spans": [
            {"neurons": pack(f"spans.{i}", s.neurons), "operator": s.operator} for i, s in enumerate(structure.spans)
        ],
        "verbatim": dict(structure.verbatim),
        "aliases": dict(structure.aliases),
        "trainable": sorted(structure.trainable),
        "entries": list(state),
    }
    return tensors, document


def from_parts(
    tensors: Mapping[str, Tensor], document: Mapping[str, Any], where: str | PathLike[str] | None = None
) -> tuple[Structure, dict[str, Tensor]]:
    """The inverse of :func:`to_parts`; nothing in the parts is trusted.

    Args:
        tensors: as they were stored; those of other names are left alone.
        document: the structure, which has passed its schema (``artifacts/schemas/graph.py``).
        where: the file, for messages.

    Raises:
        CorruptFileError: an index is outside what it points into, or elements are not edges, features or verbatim once.
    """
    stored, index = (_below(prefix, tensors) for prefix in (_STATE, _INDEX))
    check_extents(stored, index, document, where)
    structure = _structure(index, document)
    aliases = structure.aliases
    state = {name: stored[aliases.get(name, name)] for name in document["entries"]}
    check_indices(structure, state, where)
    return structure, state


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _structure(index: Mapping[str, Tensor], document: Mapping[str, Any]) -> Structure:
    def unpack(packed: Mapping[str, Any]) -> Tensor:
        shape: Sequence[int] = packed["shape"]
        if packed.get("tensor") is not None:
            return index[packed["tensor"]].to(torch.int64).view(shape)
        count = torch.Size(shape).numel()
        return torch.arange(packed["start"], packed["start"] + count).view(shape)

    columns, rows, heads = (document.get(name) for name in ("columns", "rows", "heads"))
    return Structure(
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
        aliases=document["aliases"],
        trainable=frozenset(document["trainable"]),
    )


def evidence_of(
    tensors: Mapping[str, Tensor], units: int, where: str | PathLike[str] | None = None
) -> dict[str, Tensor]:
    """What images have shown of every unit, by name.

    Raises:
        CorruptFileError: it is not one finite real number for every unit.
    """
    found = _below(EVIDENCE, tensors)
    for name, values in found.items():
        if values.shape != (units,) or values.dtype != torch.float32 or not values.isfinite().all():
            raise CorruptFileError(
                "The graph's evidence does not fit its units",
                expected=f"{units} finite numbers, float32",
                got=f"{EVIDENCE}{name}: {values.dtype} {list(values.shape)}",
                where=where,
                next_step="write the file again with metaprune encode",
            )
    return found


def is_structure(name: str) -> bool:
    """Whether a tensor of the parts is an index list or of units, not an entry of the state dict."""
    return name.startswith((_INDEX, EVIDENCE))
