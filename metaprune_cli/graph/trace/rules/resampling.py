"""Rules for operators that look up positions: a channel stays a channel, whatever is looked up where."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Ids, Label, varying
from metaprune_cli.graph.trace.rules.boundary import no_activation, unknown
from metaprune_cli.graph.trace.rules.order import fix_along
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten


def looks_up(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """grid_sample, roi_align, max_unpool: (batch, channels, …) → (…, channels, …); what says where is locked."""
    ids = trace.ids(args[0])
    where = trace.ids(args[1])
    if where is not None and func.overloadpacket in (aten.max_unpool2d, aten.max_unpool3d):
        if ids is not None:
            trace.neurons.tie(_channels(trace, ids), _channels(trace, where))
    elif where is not None:
        trace.neurons.lock(where, f"says where {func.overloadpacket.__name__} looks")
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    outputs = [leaf for leaf in (out if isinstance(out, tuple | list) else (out,)) if isinstance(leaf, Tensor)]
    channels = _channels(trace, ids)
    laid = tuple(channels.view(1, -1, *[1] * (leaf.dim() - 2)).expand(leaf.shape) for leaf in outputs)
    return laid if len(outputs) > 1 else laid[0]


def _channels(trace: Tracer, ids: Ids) -> Ids:
    """One id for each index along dimension 1."""
    head = trace.neurons.tie_along(ids, [d for d in range(ids.dim()) if d != 1])
    return head.reshape(-1).expand(ids.size(1)) if head.numel() == 1 else head.reshape(-1)


def unfolds(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """im2col: channel c becomes the rows c·k … c·k + k − 1, k the number of taps."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    axis = ids.dim() - 3
    fixed = fix_along(trace, ids, [axis + 1, axis + 2], "positions of different neurons are unfolded")
    if fixed is None:
        return None
    rows: Ids = fixed.squeeze(-1).repeat_interleave(args[1][0] * args[1][1], dim=axis)
    return rows.expand(out.shape)


def folds(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """col2im: the inverse; the rows of a channel are added, and go together."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    taps, axis = args[2][0] * args[2][1], ids.dim() - 2
    fixed = fix_along(trace, ids, [axis + 1], "positions of different neurons are folded")
    if fixed is None:
        return None
    rows: Ids = fixed.squeeze(-1).unflatten(axis, (-1, taps))
    if axis + 1 in varying(rows):
        rows = trace.neurons.tie_along(rows, [axis + 1])
    return rows.narrow(axis + 1, 0, 1).unsqueeze(-1).expand(out.shape)


def complex_pairs(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """view_as_complex: real and imaginary part are one value, of one neuron or of two elements."""
    ids, elements = trace.ids(args[0]), trace.elements(args[0])
    if ids is not None:
        fixed = fix_along(trace, ids, [ids.dim() - 1], "real and imaginary parts are different neurons")
        return None if fixed is None else fixed.squeeze(-1)
    if elements is None:
        return unknown(trace, func, args, kwargs, out)
    real, imaginary = (
        elements.view(lambda index: index.select(-1, 0)),
        elements.view(lambda index: index.select(-1, 1)),
    )
    return real.beside([imaginary])


def complex_parts(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """view_as_real: the two parts are of one neuron."""
    ids = trace.ids(args[0])
    return no_activation(trace, func, args, kwargs) if ids is None else ids.unsqueeze(-1).expand(out.shape)
