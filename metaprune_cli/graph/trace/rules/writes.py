"""Rules for writes: into a whole tensor, into a part of one, and what other views of the same memory then carry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Elements, Ids, Label, compact, squeeze_constant
from metaprune_cli.graph.trace.rules.moves import as_neurons
from metaprune_cli.graph.trace.tracer import Tracer


def copies(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """x.copy_(y): the written elements take over the neurons of y, which go with those that were there."""
    target, source = args[:2]
    label = trace.label(source)
    if label is None:
        return trace.label(target)
    ids = as_neurons(trace, label) if isinstance(label, Elements) else label
    ids = ids.expand(target.shape)
    before = trace.ids(target)
    if before is not None:
        trace.neurons.tie(*compact([before, ids]))
    return rewrite(trace, func, target, ids)


def rewrite(trace: Tracer, func: Any, target: Tensor, ids: Ids) -> Ids:
    """``ids`` for ``target``; where the operator works in place, all views of its memory see them too."""
    if not func._schema.is_mutable or target.numel() == 0:
        return ids
    aliases = [t for t in trace.sharing(target) if t is not target]
    if not aliases:
        trace.forget_value(target)
        return ids
    memory = torch.zeros(target.untyped_storage().nbytes() // target.element_size(), dtype=torch.int64)
    for tensor in aliases:
        old = trace.ids(tensor)
        if old is not None:
            _window(memory, tensor).copy_(torch.where(old > 0, old, _window(memory, tensor)))
    _window(memory, target).copy_(ids)
    for tensor in aliases:
        trace.attach(tensor, healed(_window(memory, tensor).clone()))
        trace.forget_value(tensor)
    trace.forget_value(target)
    return ids


def healed(ids: Ids) -> Ids:
    """Constants beside one neuron, along any axis, are what this neuron is where nothing was written."""
    shape = ids.shape
    for d in range(ids.dim()):
        if ids.size(d) > 1:
            only = ids.amax(d, keepdim=True)
            if bool(((ids == 0) | (ids == only)).all()):
                ids = only
    return ids.expand(shape)


def _window(memory: Tensor, tensor: Tensor) -> Tensor:
    return memory.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def sized(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """zeros_like and its kin, and what fills in place: constants, but as many as there are neurons.

    One of several (``ones_like(x[:, :1])``, a column of a time or of places) is one of its own; who lent it its size
    stays where it is.
    """
    ids = trace.ids(args[0])
    if ids is None or func._schema.is_mutable or not _is_one_of_many(trace, args[0], ids):
        return ids
    trace.neurons.lock(ids, "its place is asked for")
    return None


def _is_one_of_many(trace: Tracer, tensor: Tensor, ids: Tensor) -> bool:
    """Whether a tensor is the part of one neuron of what has more."""
    whole = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.numel() < whole and squeeze_constant(ids).numel() == 1
