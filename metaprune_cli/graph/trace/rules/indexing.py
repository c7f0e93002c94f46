"""Rules for indexing: by positions the ids pass on; by an index whose value is not known, neurons cannot be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Ids, Label, compact, varying
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.rules.moves import as_activation, moves
from metaprune_cli.graph.trace.rules.order import fix_along
from metaprune_cli.graph.trace.rules.writes import healed, rewrite
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten

_BY_DATA = "neurons are chosen by an index that depends on data"
_BY_CONSTANT = "neurons are chosen by constants"


def index(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """x[..., indices, ...]: neurons that are chosen by an index are locked, positions pass on."""
    ids, indices = trace.ids(args[0]), args[1]
    if ids is None:
        chosen_by_neurons = any(trace.ids(i) is not None for i in indices)
        return (unknown if chosen_by_neurons else moves)(trace, func, args, kwargs, out)
    _lock_chosen(trace, ids, {d: i for d, i in enumerate(indices) if i is not None})
    return func(ids, _as_indices(trace, indices))


def index_select(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """As ``index`` along one axis."""
    ids = trace.ids(args[0])
    if ids is None:
        return (moves if trace.ids(args[2]) is None else unknown)(trace, func, args, kwargs, out)
    dim = args[1] % ids.dim()
    _lock_chosen(trace, ids, {dim: args[2]})
    return func(ids, dim, _as_index(trace, args[2]))


def gather(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Along positions, every neuron picks among its own."""
    ids = trace.ids(args[0])
    if ids is None:
        return unknown(trace, func, args, kwargs, out)
    fixed = fix_along(trace, ids, [args[1] % ids.dim()], _BY_DATA)
    return None if fixed is None else _meet_index(trace, _cut(fixed, out.shape).expand(out.shape), args[2])


def scatter(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Into positions: what is written and what is written into go together; into neurons, both are locked."""
    target, dim, where = args[:3]
    source = args[3] if len(args) > 3 and isinstance(args[3], Tensor) else None
    parts = []
    for tensor in (target, source):
        ids = trace.ids(tensor)
        fixed = None if ids is None else fix_along(trace, ids, [dim % ids.dim()], _BY_DATA)
        if ids is not None and fixed is None:
            return None
        if fixed is not None:
            parts.append(fixed)
    if not parts:
        return unknown(trace, func, args, kwargs, out)
    merged = parts[0]
    if len(parts) == 2:
        small = _cut(parts[0], parts[1].shape)
        trace.neurons.join(*compact([small, parts[1]]))
        merged = torch.maximum(small, parts[1]) if small.shape == parts[0].shape else parts[0]
    return rewrite(trace, func, target, _meet_index(trace, merged.expand(out.shape), where))


def index_put(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """x[indices] = values: as ``scatter``, where the neurons' axis is not among the indices."""
    target, indices, values = args[:3]
    before, ids = as_activation(trace, target), as_activation(trace, values)
    if ids is None:
        if before is not None:
            _lock_chosen(trace, before, {d: i for d, i in enumerate(indices) if i is not None})
        return trace.label(target)
    base = torch.zeros(target.shape, dtype=torch.int64) if before is None else before.clone()
    chosen = _as_indices(trace, indices)
    if before is not None:
        _lock_chosen(trace, before, {d: i for d, i in enumerate(indices) if i is not None})
        old = aten.index(before, chosen)
        trace.neurons.tie(old, ids.expand(old.shape))
    values = ids.expand(aten.index(base, chosen).shape)
    written = aten.index_put(base, chosen, values)
    if not torch.equal(aten.index(written, chosen), values):  # several neurons, and nobody knows where they went
        trace.neurons.lock(ids, "written to places that depend on data")
    return rewrite(trace, func, target, healed(written))


def _lock_chosen(trace: Tracer, ids: Ids, chosen: dict[int, Tensor]) -> None:
    dim = 0
    for d, i in chosen.items():
        dim = max(dim, d)
        reason = _BY_DATA if trace.value(i) is None else _BY_CONSTANT
        width = max(i.dim(), 1) if i.dtype == torch.bool else 1
        if any(axis in varying(ids) for axis in range(dim, dim + width)):
            trace.neurons.lock(ids, reason)


def _as_indices(trace: Tracer, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    chosen: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype is not torch.bool:
            chosen.append(None if index is None else _as_index(trace, index))
        else:
            chosen += trace.places(index)
    return chosen


def _as_index(trace: Tracer, tensor: Tensor) -> Tensor:
    value = trace.value(tensor)
    return torch.zeros(tensor.shape, dtype=torch.int64) if value is None else value.cpu()


def _meet_index(trace: Tracer, ids: Ids, where: Tensor) -> Ids:
    """An index that says something else for every neuron goes with the neurons; one for all of them is locked."""
    own = trace.ids(where)
    if own is None:
        return ids
    if own.dim() != ids.dim() or not set(varying(ids)) <= set(varying(own)):
        trace.neurons.lock(own, "says which positions are chosen")
    else:
        small = _cut(ids, own.shape)
        trace.neurons.tie(*compact([small.expand(own.shape), own]))
    return ids


def _cut(ids: Ids, shape: Any) -> Ids:
    """Narrow every dimension to at most ``shape``."""
    for d, size in enumerate(shape):
        if ids.size(d) > size:
            ids = ids.narrow(d, 0, size)
    return ids
