"""Rules for contractions: with a parameter they make edges and new neurons, between activations they couple."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metaprune_cli.graph.labels import Elements, Ids, Label, varying
from metaprune_cli.graph.rules.boundary import unknown
from metaprune_cli.graph.rules.elementwise import attach_features
from metaprune_cli.graph.rules.parameters import COMPUTED, factors, lost
from metaprune_cli.graph.structure import CONSTANT
from metaprune_cli.graph.trace import Tracer

aten = torch.ops.aten


def convolution(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Any convolution, grouped, depthwise, dilated or transposed, in any number of dimensions."""
    source, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    elements = trace.elements(weight)
    if elements is None or trace.elements(source) is not None:
        return _convolution_by_others(trace, func, args, kwargs, out)
    rows, columns, *kernel = elements.index.shape
    block = elements.view(lambda index: index.reshape(groups, rows // groups, columns, -1))
    positions = out.numel() // out.size(1)
    if transposed:
        block = block.view(lambda index: index.transpose(1, 2))
        positions = source.numel() // source.size(1)
    channels = _along(trace, _ids(trace, source), 1).reshape(groups, -1)
    destinations = trace.structure.contract(block, channels, tuple(kernel), positions)
    if destinations is None:
        return unknown(trace, func, args, kwargs, out)
    ids = _lay(destinations.reshape(-1), out, 1)
    _attach_bias(trace, bias, ids.movedim(1, -1))
    return ids


def _convolution_by_others(
    trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> Label:
    """Kernels that are constants, activations, or computed from parameters nobody knows how."""
    source, weight, bias, groups = args[0], args[1], args[2], args[8]
    ids = trace.ids(source)
    channelwise = groups == source.size(1) == out.size(1)
    positions = (source if args[6] else out).numel() // (source if args[6] else out).size(1)
    if ids is None or not channelwise or trace.label(weight) is not None:
        opaque(trace, func, args, out, positions * weight.numel())
        return None
    channels = _along(trace, ids, 1)
    trace.structure.multiply(channels, positions * weight.numel() // groups)
    laid = _lay(channels, out, 1)
    _attach_bias(trace, bias, laid.movedim(1, -1))
    return laid


def opaque(trace: Tracer, func: Any, args: tuple[Any, ...], out: object, macs: int) -> None:
    """A contraction without edges: what meets it is locked, its multiply-accumulates count as they are."""
    for leaf in tree_leaves((args, out)):
        ids, elements = trace.ids(leaf), trace.elements(leaf)
        if ids is not None:
            trace.structure.lock(ids, f"meets {func.overloadpacket} with a weight that {COMPUTED}")
        for part in elements.alone() if elements is not None else ():
            trace.structure.note(part.entry, f"a weight {COMPUTED}, by {func.overloadpacket}")
    trace.structure.multiply(torch.zeros(1, dtype=torch.int64), macs)


def linear(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """x @ W.T + b."""
    source, weight = args[:2]
    elements = trace.elements(weight)
    if elements is None or trace.elements(source) is not None:
        return unknown(trace, func, args, kwargs, out)
    return _project(trace, func, (source, elements.view(Tensor.t), -1), args, out, args[2] if len(args) > 2 else None)


def matrix_product(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """mm, bmm and their kin, with or without a summand: with a parameter an affine map, else attention's products."""
    bias, (left, right) = (args[0], args[1:3]) if len(args) > 2 else (None, args[:2])
    left_elements, right_elements = trace.elements(left), trace.elements(right)
    if left_elements is not None and right_elements is not None:
        if out.dim() > 1:
            trace.structure.multiply(torch.zeros(1, dtype=torch.int64), out.numel() * left.size(-1))
        return factors(trace, func, left_elements, right_elements, out)
    if out.dim() < 2 and trace.ids(left) is None and trace.ids(right) is None:
        lost(trace, func, [e for e in (left_elements, right_elements) if e is not None])
        return None
    if right_elements is not None:
        return _project(trace, func, (left, right_elements, -1), args, out, bias)
    if left_elements is not None:
        flipped = left_elements.view(lambda index: index.transpose(-1, -2) if index.dim() > 1 else index)
        return _project(trace, func, (right, flipped, -2), args, out, bias)
    if left.dim() < 2 or right.dim() < 2:
        return unknown(trace, func, args, kwargs, out)
    return _between_activations(trace, func, left, right, out)


def embedding(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """A lookup is a contraction with a one-hot input: one source, as many taps as there are words."""
    elements = trace.elements(args[0])
    if elements is None or elements.index.dim() != 2:
        return unknown(trace, func, args, kwargs, out)
    block = elements.view(lambda index: index.t()[None, :, None, :])
    sources = torch.full((1, 1), CONSTANT)
    destinations = trace.structure.contract(block, sources, (elements.index.size(0),), 0)
    if destinations is None:
        return unknown(trace, func, args, kwargs, out)
    return _lay(destinations[0], out, -1)


def _project(
    trace: Tracer, func: Any, operands: tuple[Tensor, Elements, int], args: tuple[Any, ...], out: Any, bias: object
) -> Label:
    """An activation times a parameter (…, in, out), contracted over the activation's axis ``axis``."""
    source, elements, axis = operands
    index = elements.index
    if index.dim() == 1:
        elements = elements.view(lambda index: index[:, None])
    elif index.dim() == 3 and index.stride(0) == 0:
        elements = elements.view(lambda index: index[:1])
    into, outof = elements.index.shape[-2:]
    block = elements.view(lambda index: index.transpose(-1, -2).reshape(-1, outof, into, 1))
    ids, groups = _ids(trace, source), block.index.size(0)
    parts = [ids] if groups == 1 else list(ids)
    channels = torch.stack([_along(trace, part, axis) for part in parts])
    destinations = trace.structure.contract(block, channels, (), source.numel() // (into * groups))
    if destinations is None:
        opaque(trace, func, args, out, source.numel() * outof)
        return None
    if groups == 1:
        laid = _lay(destinations[0], out, -1 if axis == -1 or out.dim() == 1 else -2)
    else:
        laid = destinations.view((groups, 1, -1) if axis == -1 else (groups, -1, 1)).expand(out.shape)
    _attach_bias(trace, bias, laid)
    return laid


def _between_activations(trace: Tracer, func: Any, left: Tensor, right: Tensor, out: Tensor) -> Label:
    """(…, m, k) @ (…, k, n): the contracted neurons are coupled, the free ones pass on."""
    a, b = _ids(trace, left), _ids(trace, right)
    m, k, n = a.size(-2), a.size(-1), b.size(-1)
    contracted_a, contracted_b = _is_neuron_axis(trace, a, -1), _is_neuron_axis(trace, b, -2)
    if contracted_a and contracted_b:
        inner_a = trace.structure.tie_along(a, [a.dim() - 2]).expand(*a.shape[:-2], 1, k).squeeze(-2)
        inner_b = trace.structure.tie_along(b, [b.dim() - 1]).expand(*b.shape[:-2], k, 1).squeeze(-1)
        trace.structure.tie(inner_a, inner_b)
        trace.structure.multiply(inner_a, m * n)
        return torch.zeros((1,) * out.dim(), dtype=torch.int64).expand(out.shape)
    for mixed, ids in ((contracted_a, a), (contracted_b, b)):
        if mixed:
            trace.structure.lock(ids, "neurons are mixed by a product with another activation")
    free_a = trace.structure.tie_along(a, [a.dim() - 1]) if not contracted_a else torch.zeros_like(a[..., :1])
    free_b = trace.structure.tie_along(b, [b.dim() - 2]) if not contracted_b else torch.zeros_like(b[..., :1, :])
    free_a = free_a.expand(*a.shape[:-1], 1)
    free_b = free_b.expand(*b.shape[:-2], 1, n)
    if varying(free_a) and varying(free_b):
        for ids in (free_a, free_b):
            trace.structure.lock(ids, "two neuron axes meet in one product")
        return None
    if varying(free_b):
        trace.structure.multiply(free_b, m * k)
        return free_b.expand(out.shape)
    trace.structure.multiply(free_a, k * n)
    return free_a.expand(out.shape)


def _is_neuron_axis(trace: Tracer, ids: Ids, axis: int) -> bool:
    """Whether different neurons, not just positions of the same ones, lie along ``axis``."""
    return axis % ids.dim() in varying(ids) and not trace.structure.same(ids, axis % ids.dim())


def _ids(trace: Tracer, tensor: Tensor) -> Ids:
    ids = trace.ids(tensor)
    return torch.full((1,) * tensor.dim(), CONSTANT).expand(tensor.shape) if ids is None else ids


def _along(trace: Tracer, ids: Ids, axis: int) -> Ids:
    """One id for every index along ``axis``; all that lie across it meet the same weights and are tied."""
    others = [d for d in range(ids.dim()) if d != axis % ids.dim()]
    head = trace.structure.tie_along(ids, others)
    return head.reshape(-1).expand(ids.size(axis)) if head.numel() == 1 else head.reshape(-1)


def _lay(neurons: Ids, out: Tensor, axis: int) -> Ids:
    """One id per index along ``axis``, the same at every position."""
    shape = [1] * out.dim()
    shape[axis] = -1
    return neurons.view(shape).expand(out.shape)


def _attach_bias(trace: Tracer, bias: object, ids: Ids) -> None:
    """A bias that is a parameter belongs to the neurons along the last dimension."""
    elements = trace.elements(bias)
    if elements is not None:
        attach_features(trace, elements, ids, "bias")
