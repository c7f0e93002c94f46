"""Rules for operators that work along one axis: along positions nothing happens to the ids, along neurons they stop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Elements, Ids, Label, compact, varying
from metaprune_cli.graph.trace.rules.boundary import no_activation
from metaprune_cli.graph.trace.rules.moves import moves
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten

_AXIS_THIRD = (aten.topk, aten.kthvalue, aten.renorm)
_LAST_AXIS = {aten.sort: -1, aten.argsort: -1, aten.topk: -1, aten.kthvalue: -1, aten.mode: -1, aten.median: -1}


def along(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Sorts, running sums and their kin: each neuron by itself along positions; over neurons, they are locked."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    outputs = [leaf for leaf in (out if isinstance(out, tuple | list) else (out,)) if isinstance(leaf, Tensor)]
    dim = _axis(func, args, kwargs)
    fixed = fix_along(trace, ids, [dim % ids.dim()], f"{func.overloadpacket.__name__} over the neurons")
    if fixed is not None and outputs[0].dim() < ids.dim():  # one of many is chosen, and the dimension goes
        fixed = fixed.select(dim % ids.dim(), 0)
    laid = tuple(None if fixed is None else fixed.expand(leaf.shape) for leaf in outputs)
    return laid if len(outputs) > 1 else laid[0]


def fix_along(trace: Tracer, ids: Ids, dims: list[int], reason: str) -> Ids | None:
    """The ids with ``dims`` narrowed to size 1; None, and all locked, where different neurons lie along these."""
    for d in [d for d in dims if d in varying(ids)]:
        if not trace.neurons.same(ids, d):
            trace.neurons.lock(ids, reason)
            return None
        ids = trace.neurons.tie_along(ids, [d]).expand(*ids.shape[:d], 1, *ids.shape[d + 1 :])
    for d in dims:
        ids = ids.narrow(d, 0, min(1, ids.size(d)))
    return ids


def transforms(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Fourier transforms along positions pass the ids on; over neurons, they are locked."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    fixed = fix_along(trace, ids, [d % ids.dim() for d in args[1]], "a Fourier transform over the neurons")
    return None if fixed is None else fixed.expand(out.shape)


def packs(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Sequences packed one step after the other, and laid out again: what lies along the last dimension stays there."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    fixed = fix_along(trace, ids, list(range(ids.dim() - 1)), "sequences are packed along the neurons")
    return (None if fixed is None else fixed.reshape(-1).expand(out[0].shape)), None


def halves(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """A gated linear unit: the neurons of the first half and those of the second go together."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    first, second = ids.chunk(2, args[1] if len(args) > 1 else kwargs.get("dim", -1))
    small_first, small_second = compact([first, second])
    trace.neurons.join(small_first, small_second)
    return torch.maximum(small_first, small_second).expand(out.shape)


def stacks(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Tensors that are stacked have one shape: what lies on top of each other goes together."""
    found = [trace.ids(t) for t in args[0]]
    known = [ids for ids in found if ids is not None]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    constant = torch.zeros((1,) * args[0][0].dim(), dtype=torch.int64).expand(args[0][0].shape)
    for ids in known[1:]:
        trace.neurons.tie(*compact([known[0], ids]))
    return torch.stack([constant if ids is None else ids for ids in found], dim) if known else None


def joins(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """cat: along positions, what lies behind each other goes together, constants (padding) too."""
    joined = moves(trace, func, args, kwargs, out)
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    if not isinstance(joined, Tensor) or dim not in varying(joined):
        return joined if isinstance(joined, Tensor | Elements) else None
    parts = [p for p in joined.split([t.size(dim) for t in args[0] if t.dim() == out.dim()], dim) if p.numel()]
    known = [part for part in parts if bool((part > 0).any())]
    neurons = [part.narrow(dim, 0, 1) for part in known]
    by_width = all(varying(row) for row in neurons)  # the neurons lie along another dimension
    by_length = any(part.size(dim) > 1 and dim not in varying(part) for part in known)  # ... of size one
    if not (by_width or by_length) or not all(trace.neurons.same(part, dim) for part in parts):
        return joined
    for row in neurons[1:]:
        trace.neurons.tie(neurons[0], row)
    return torch.cat([p if bool((p > 0).any()) else neurons[0].expand(p.shape) for p in parts], dim)


def _axis(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    if "dim" in kwargs:
        return int(kwargs["dim"])
    position = 2 if func.overloadpacket in _AXIS_THIRD else 1
    if len(args) > position and not isinstance(args[position], bool):
        return int(args[position])
    return _LAST_AXIS.get(func.overloadpacket, 0)
