"""Rules for operators that move elements: they run as they are on the ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import map_tensors_in, tensors_in
from metaprune_cli.graph.trace.labels import (
    Elements,
    Label,
    compact,
    concatenated,
    condensed,
    reshape,
    squeeze_constant,
    varying,
)
from metaprune_cli.graph.trace.neurons import CONSTANT
from metaprune_cli.graph.trace.regular import NOWHERE
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten

_SUBSTITUTES: dict[Any, Any] = {
    aten.view: reshape,
    aten._unsafe_view: reshape,
    aten.reshape: reshape,
    aten.cat: concatenated,
    aten.transpose_: torch.transpose,
    aten.swapaxes_: torch.transpose,
    aten.t_: torch.t,
    aten.squeeze_: torch.squeeze,
    aten.unsqueeze_: torch.unsqueeze,
    aten.constant_pad_nd: lambda ids, pad, *_: torch.constant_pad_nd(ids, pad, 0),
}
"""Operators whose very same call would fail or lie on the ids (a view of an expanded tensor; padding with a value),
or change them in place."""
_ON_ELEMENTS = _SUBSTITUTES | {aten.constant_pad_nd: lambda index, pad, *_: torch.constant_pad_nd(index, pad, NOWHERE)}


def moves(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Operators that only move elements run as they are on the ids."""
    if any(trace.elements(tensor) for tensor in tensors_in((args, kwargs))):
        return _moves_elements(trace, func, args, kwargs, out)

    def as_ids(tensor: Tensor) -> Tensor:
        ids = trace.ids(tensor)
        if ids is not None:
            return ids
        return torch.zeros((1,) * tensor.dim(), dtype=torch.int64).expand(tensor.shape)

    if all(trace.ids(t) is None for t in tensors_in((args, kwargs))):
        return None
    real_args, real_kwargs = map_tensors_in(as_ids, (args, kwargs))
    moved = _SUBSTITUTES.get(func.overloadpacket, func)(*real_args, **real_kwargs)
    return tuple(map(condensed, moved)) if isinstance(moved, tuple | list) else condensed(moved)


def _moves_elements(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Move a parameter's elements; where several tensors meet (cat), the parameter becomes neurons of its own."""
    tensors = tensors_in((args, kwargs))
    labelled = [t for t in tensors if trace.label(t) is not None]
    elements = trace.elements(labelled[0])
    alone = all(t is labelled[0] or not t.is_floating_point() for t in tensors)  # but for indices and masks
    if alone and elements is not None:

        def move(index: Tensor) -> Any:
            on_index = map_tensors_in(lambda t: index if t is labelled[0] else trace.value(t), (args, kwargs))
            return _ON_ELEMENTS.get(func.overloadpacket, func)(*on_index[0], **on_index[1])

        try:
            return elements.apply(move)
        except (RuntimeError, TypeError):
            return unknown(trace, func, args, kwargs, out)
    if func.overloadpacket is aten.cat and (beside := _side_by_side(trace, args, kwargs)) is not None:
        return beside
    for tensor in labelled:
        as_activation(trace, tensor)
    return moves(trace, func, args, kwargs, out)


def _side_by_side(trace: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Elements | None:
    """Parameters laid beside each other: each is padded to the whole. None where something else lies there too."""
    parts = [elements for tensor in args[0] if (elements := trace.elements(tensor)) is not None]
    rank = parts[0].index.dim()
    if len(parts) < len(args[0]) or any(p.companions or p.mixes or p.work or p.index.dim() != rank for p in parts):
        return None
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % rank
    sizes = [part.index.size(dim) for part in parts]
    padded = []
    for number, part in enumerate(parts):
        around = [0, 0] * (rank - 1 - dim) + [sum(sizes[:number]), sum(sizes[number + 1 :])]
        padded.append(Elements(part.entry, torch.constant_pad_nd(part.real(), around, NOWHERE)))
    return padded[0].beside(padded[1:])


def as_neurons(trace: Tracer, elements: Elements) -> Tensor:
    """A parameter that becomes an activation (a class token): one new neuron per element, owning it; used again, again.

    Were they new each time, what reads them would seem to read others in training mode than in eval mode.
    """
    trace.builder.spend(elements)
    ids = _own_neurons(trace, elements)
    for companion in elements.companions:
        if bool(((ids == CONSTANT) | (companion.real() == NOWHERE)).all()):  # laid beside each other
            ids = torch.maximum(ids, _own_neurons(trace, companion))
        else:
            trace.builder.note(companion.entry, "computes an activation together with another parameter")
    return ids


def _own_neurons(trace: Tracer, elements: Elements) -> Tensor:
    """Those of the elements by themselves, without what they were computed from too."""
    small = squeeze_constant(elements.real())
    unique = small[small != NOWHERE].unique()
    neurons = trace.builder.constants(elements.entry, unique)
    if neurons is None:
        neurons = trace.neurons.new(elements.entry, unique.numel())
        trace.builder.feature(Elements(elements.entry, unique), neurons, "constant")
    ids = neurons[torch.searchsorted(unique, small.clamp(min=0))].where(small != NOWHERE, CONSTANT)
    return ids.expand(elements.index.shape)


def as_activation(trace: Tracer, tensor: Tensor) -> Tensor | None:
    """The ids of a tensor; a parameter's own (a learned query, a first hidden state) where it is one."""
    elements = trace.elements(tensor)
    if elements is not None:
        trace.attach(tensor, as_neurons(trace, elements))
    return trace.ids(tensor)


def view(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Reshapes: where ids end up spread over two or more axes, what survives must be an outer product over them."""
    moved = moves(trace, func, args, kwargs, out)
    before = trace.ids(args[0])
    if isinstance(moved, Tensor) and before is not None:
        axes = varying(moved)
        if len(axes) > 1 and [moved.size(d) for d in axes] != [before.size(d) for d in varying(before)]:
            trace.heads.spread(moved)
    return moved


def channel_shuffle(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """A reshape to (groups, channels / groups) in one operator: every group must lose the same channels."""
    ids = trace.ids(args[0])
    if ids is not None:
        trace.neurons.tie_along(ids.unflatten(1, (args[1], -1)), [1])
    return moves(trace, func, args, kwargs, out)


def split(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Equal chunks of a split along the neurons' axis are tied to each other."""
    parts = moves(trace, func, args, kwargs, out)
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    before = trace.ids(args[0])
    if before is not None and len(parts) > 1 and dim % before.dim() in varying(before):
        for part in parts[1:]:
            if part.shape == parts[0].shape:
                first, second = compact([parts[0], part])
                trace.neurons.tie(first, second)
    return parts


def restrided(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """as_strided_ to the tensor's own shape, row-major (as torch's global pooling does): only memory format changes."""
    ids = trace.ids(args[0])
    whole = out.untyped_storage().nbytes() == out.numel() * out.element_size()
    if ids is not None and ids.shape == out.shape and whole and out.is_contiguous():
        return ids
    return unknown(trace, func, args, kwargs, out)


def passes(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """The output is the input, element for element."""
    return trace.label(args[0])


def forgets(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """The values are replaced by constants."""
    return None
