"""Rules for reductions, pooling and resampling: ids pass on along the dimensions that remain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import varying
from metaprune_cli.graph.trace.rules.boundary import no_activation
from metaprune_cli.graph.trace.rules.parameters import summed
from metaprune_cli.graph.trace.rules.zeros import vanishes
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten
_WHICH = "which neuron is largest or smallest is asked"


def reduces(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Reductions: ids pass on along the dimensions that remain; over neurons, the neurons are mixed."""
    ids, elements = trace.ids(args[0]), trace.elements(args[0])
    if elements is not None and func.overloadpacket in (aten.sum, aten.mean):
        found = summed(elements, sorted(reduced_dims(func, elements.index.dim(), args, kwargs)), out)
        return no_activation(trace, func, args, kwargs) if found is None else found
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    outputs = [leaf for leaf in (out if isinstance(out, tuple | list) else (out,)) if isinstance(leaf, Tensor)]
    dims = reduced_dims(func, ids.dim(), args, kwargs)
    for d in dims if len(outputs) > 1 and not outputs[1].is_floating_point() else ():
        if d in varying(ids) and not trace.neurons.same(ids, d):
            trace.lock_if_used(outputs[1], ids, _WHICH)
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
            trace.neurons.lock(ids, _WHICH)
        if counts:
            trace.neurons.span(ids, func.overloadpacket.__name__)
        return trace.heads.collapse(ids, dim)
    return ids.narrow(dim, 0, 1)


def pools(spatial: int) -> Callable[..., Any]:
    """Pooling, resampling, padding over so many dimensions of positions: a channel stays a channel."""

    def pools_positions(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        ids = trace.ids(args[0])
        outputs = [leaf for leaf in (out if isinstance(out, tuple | list) else (out,)) if isinstance(leaf, Tensor)]
        if ids is None:
            return no_activation(trace, func, args, kwargs)
        dims = list(range(ids.dim() - spatial, ids.dim()))
        head = trace.neurons.tie_along(ids, [d for d in dims if d in varying(ids)])
        for d in dims:
            head = head.narrow(d, 0, 1)
        return tuple(head.expand(leaf.shape) for leaf in outputs)

    return pools_positions
