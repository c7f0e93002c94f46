"""Rules for elementwise operators: activations that meet are coupled, parameters become features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import tensors_in
from metaprune_cli.graph.components import unique_pairs
from metaprune_cli.graph.trace.labels import Elements, Label, compact, spread, squeeze_constant, varying
from metaprune_cli.graph.trace.regular import NOWHERE
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.rules.parameters import between_parameters
from metaprune_cli.graph.trace.rules.writes import rewrite
from metaprune_cli.graph.trace.tracer import Tracer


def pointwise(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Elementwise: activations that meet are coupled; a parameter's elements are features of the neurons they meet."""
    if not isinstance(out, Tensor):
        return unknown(trace, func, args, kwargs, out)
    operands = [t for t in tensors_in((args, kwargs)) if t.dim() <= out.dim()]
    active = [(t, ids) for t in operands if (ids := trace.ids(t)) is not None]
    owned = [e for t in operands if (e := trace.elements(t)) is not None]
    if not active:
        return between_parameters(trace, func, args, kwargs, out)
    merged, shape = spread(active[0][1], out.shape), _own_sizes(active[0][0])
    for tensor, ids in active[1:]:
        merged, shape = _meet(trace, (merged, shape), (spread(ids, out.shape), _own_sizes(tensor))), tuple(out.shape)
    for elements in owned:
        attach_features(trace, elements, merged, _kind(func, elements))
    target = args[0]
    if func._schema.is_mutable and isinstance(target, Tensor) and len(active) > 1 and _is_part(trace, target):
        return rewrite(trace, func, target, merged)
    return merged


def _is_part(trace: Tracer, target: Tensor) -> bool:
    """Whether a write to ``target`` tells something new: it had no neurons, or is a view of a part."""
    whole = target.untyped_storage().nbytes() // target.element_size()
    return trace.ids(target) is None or target.numel() < whole


def _meet(trace: Tracer, first: tuple[Tensor, tuple[int, ...]], second: tuple[Tensor, tuple[int, ...]]) -> Tensor:
    """Couple two activations' ids; one value broadcast over a head stands for it, over other neurons it is locked."""
    (a, a_shape), (b, b_shape) = first, second
    for ids, shape, other in ((a, a_shape, b), (b, b_shape, a)):
        sizes = (1,) * (other.dim() - len(shape)) + tuple(shape)
        over = [d for d in varying(other) if sizes[d] == 1 and other.size(d) > 1 and not trace.neurons.same(other, d)]
        if over and bool((squeeze_constant(ids) > 0).any()):
            if len(over) == 1 and varying(ids) and len(varying(other)) == 2:
                trace.heads.broadcast(*compact([ids, other]))
            else:
                trace.neurons.lock(ids, "one value for many neurons: it is broadcast over other neurons")
            return other
    small_a, small_b = compact([a, b])
    trace.neurons.join(small_a, small_b)
    if bool((small_b >= small_a).all()):  # as a rule all of one side came later; its ids are stored in less
        return b
    return a if bool((small_a >= small_b).all()) else torch.maximum(small_a, small_b).expand(a.shape)


def _own_sizes(tensor: Tensor) -> tuple[int, ...]:
    """The tensor's shape before it was expanded."""
    return tuple(1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def attach_features(trace: Tracer, elements: Elements, ids: Tensor, kind: str) -> None:
    """Give each parameter element, and what it was computed from, to the neuron it meets."""
    trace.builder.spend(elements)
    for part in elements.alone():
        _attach_alone(trace, part, ids, kind)


def _attach_alone(trace: Tracer, elements: Elements, ids: Tensor, kind: str) -> None:
    """Elements that meet many neurons are kept verbatim."""
    index, neurons = compact([spread(elements.real(), ids.shape), ids])
    pairs = unique_pairs(torch.stack([index.reshape(-1), neurons.reshape(-1)]))
    pairs = pairs[:, pairs[0] != NOWHERE]
    if bool((pairs[1] == 0).any()):
        trace.builder.note(elements.entry, "meets no neuron")
        pairs = pairs[:, pairs[1] > 0]
    if pairs.size(1) == 0:
        return
    owners, first = _first_of_each(pairs[0])
    if owners.numel() < pairs.size(1):
        if owners.numel() == 1 or pairs[1].unique().numel() < pairs.size(1):
            trace.builder.note(elements.entry, "one value for many neurons")
            return
        leader = torch.zeros(int(owners.max()) + 1, dtype=torch.int64)
        leader[owners] = pairs[1][first]
        trace.neurons.tie(leader[pairs[0]], pairs[1])
        pairs = pairs[:, first]
    trace.builder.feature(Elements(elements.entry, pairs[0]), pairs[1], kind)


def _first_of_each(sorted_keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct keys of a sorted array, and where each of them comes first."""
    keys, counts = sorted_keys.unique_consecutive(return_counts=True)
    return keys, counts.cumsum(0) - counts


def _kind(func: Any, elements: Elements) -> str:
    """What a parameter does to the neuron it meets elementwise."""
    name = func.overloadpacket.__name__.rstrip("_")
    if name not in ("add", "sub", "rsub"):
        return "scale"
    wide = sum(size > 1 for size in elements.index.shape) > 1
    return "position" if wide else "shift"
