"""Rules for reductions, pooling and resampling: ids pass on along the dimensions that remain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import varying
from metaprune_cli.graph.trace.rules.boundary import no_activation
from metaprune_cli.graph.trace.rules.zeros import vanishes
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten

_POOLED = {
    1: ("avg_pool1d", "reflection_pad1d", "replication_pad1d", "upsample_nearest1d", "upsample_linear1d"),
    2: (
        *("avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "max_pool2d_with_indices"),
        *("reflection_pad2d", "replication_pad2d", "upsample_nearest2d", "_upsample_nearest_exact2d"),
        *("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa"),
    ),
    3: (
        *("avg_pool3d", "_adaptive_avg_pool3d", "adaptive_max_pool3d", "max_pool3d_with_indices"),
        *("reflection_pad3d", "replication_pad3d", "upsample_nearest3d", "upsample_trilinear3d"),
    ),
}
POOLED_DIMS = {getattr(aten, name): dims for dims, names in _POOLED.items() for name in names if hasattr(aten, name)}
"""Operators that work on positions only, and how many dimensions of positions they have."""


def reduces(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Reductions: ids pass on along the dimensions that remain; over neurons, the neurons are mixed."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    outputs = [leaf for leaf in (out if isinstance(out, tuple | list) else (out,)) if isinstance(leaf, Tensor)]
    dims = reduced_dims(func, ids.dim(), args, kwargs)
    counts = func.overloadpacket is not aten.sum or not vanishes(trace, args[0])
    for d in dims:
        ids = _reduce_one(trace, func, ids, d, counts=counts)
    ids = ids.reshape(outputs[0].shape) if ids.numel() == outputs[0].numel() else None
    return tuple(ids for _ in outputs) if len(outputs) > 1 else ids


def reduced_dims(func: Any, rank: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
    """The dimensions that a reduction of a tensor of ``rank`` dimensions reduces; all where none is named."""
    position = 2 if func.overloadpacket in (aten.linalg_vector_norm, aten.norm) else 1
    given = args[position] if len(args) > position else kwargs.get("dim")
    if isinstance(given, bool) or given is None or given == []:
        return list(range(rank))
    return [d % rank for d in (given if isinstance(given, list | tuple) else [given])]


def _reduce_one(trace: Tracer, func: Any, ids: Tensor, dim: int, *, counts: bool) -> Tensor:
    """``counts``: whether zeros among the neurons change the result (for a sum of what vanishes, they do not)."""
    constant = torch.zeros((1,) * ids.dim(), dtype=torch.int64).expand(*ids.shape[:dim], 1, *ids.shape[dim + 1 :])
    if ids.size(dim) == 0:  # reduced from nothing
        return constant
    if dim in varying(ids):
        if trace.neurons.same(ids, dim):
            return trace.neurons.tie_along(ids, [dim]).expand(*ids.shape[:dim], 1, *ids.shape[dim + 1 :])
        if func.overloadpacket in (aten.argmax, aten.argmin):
            trace.neurons.lock(ids, "which neuron is largest or smallest is asked")
        if counts:
            trace.neurons.span(ids, func.overloadpacket.__name__)
        return trace.heads.collapse(ids, dim)
    return ids.narrow(dim, 0, 1)


def pools(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Pooling, resampling, padding: whatever happens to the positions, a channel stays a channel."""
    ids = trace.ids(args[0])
    outputs = [leaf for leaf in (out if isinstance(out, tuple | list) else (out,)) if isinstance(leaf, Tensor)]
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    spatial = POOLED_DIMS[func.overloadpacket]
    dims = list(range(ids.dim() - spatial, ids.dim()))
    head = trace.neurons.tie_along(ids, [d for d in dims if d in varying(ids)])
    for d in dims:
        head = head.narrow(d, 0, 1)
    return tuple(head.expand(leaf.shape) for leaf in outputs)
