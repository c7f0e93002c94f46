"""Rules for contractions: with a parameter they make edges and new neurons, between activations they couple."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import tensors_in
from metaprune_cli.graph.trace.labels import Elements, Ids, Label, varying
from metaprune_cli.graph.trace.neurons import CONSTANT
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.rules.elementwise import attach_features
from metaprune_cli.graph.trace.rules.moves import as_activation
from metaprune_cli.graph.trace.rules.parameters import COMPUTED, factors, lost
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten


def convolution(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Any convolution, grouped, depthwise, dilated or transposed, in any number of dimensions."""
    source, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    elements = trace.elements(weight)
    if elements is not None and trace.elements(source) is not None:
        as_activation(trace, source)
    if elements is None or trace.elements(source) is not None:
        return _convolution_by_others(trace, func, args, kwargs, out)
    rows, columns, *kernel = elements.index.shape
    block = elements.view(lambda index: index.reshape(groups, rows // groups, columns, -1))
    positions = out.numel() // out.size(1)
    if transposed:
        block = block.view(lambda index: index.transpose(1, 2))
        positions = source.numel() // source.size(1)
    channels = _along(trace, _ids(trace, source), 1).reshape(groups, -1)
    destinations = trace.builder.contract(block, channels, tuple(kernel), positions)
    if destinations is None:
        opaque(trace, func, args, out, positions * weight.numel())
        return None
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
    trace.builder.multiply(channels, positions * weight.numel() // groups)
    laid = _lay(channels, out, 1)
    _attach_bias(trace, bias, laid.movedim(1, -1))
    return laid


def opaque(
    trace: Tracer, func: Any, args: tuple[Any, ...], out: object, macs: int, why: str = f"that {COMPUTED}"
) -> None:
    """A contraction without edges: what meets it is locked, its multiply-accumulates count as they are."""
    for leaf in tensors_in((args, out)):
        ids, elements = trace.ids(leaf), trace.elements(leaf)
        if ids is not None:
            trace.neurons.lock(ids, f"meets {func.overloadpacket} with a weight {why}")
        if elements is not None:
            lost(trace, func, [elements])
    trace.builder.multiply(torch.zeros(1, dtype=torch.int64), macs)


def linear(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """x @ W.T + b."""
    source, weight = args[:2]
    elements = trace.elements(weight)
    if elements is not None and trace.elements(source) is not None:
        as_activation(trace, source)
    if elements is None or trace.elements(source) is not None:
        return unknown(trace, func, args, kwargs, out)
    return _project(trace, func, (source, elements.view(Tensor.t), -1), args, out, args[2] if len(args) > 2 else None)


def matrix_product(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """mm, bmm and their kin, with or without a summand: with a parameter an affine map, else attention's products."""
    bias, (left, right) = (args[0], args[1:3]) if len(args) > 2 else (None, args[:2])
    left_elements, right_elements = trace.elements(left), trace.elements(right)
    if left_elements is not None and right_elements is not None and (bias is not None or _is_layer(right_elements)):
        as_activation(trace, left)
        left_elements = None
    if left_elements is not None and right_elements is not None:
        return factors(trace, func, left_elements, right_elements, out)
    if out.dim() < 2 and trace.ids(left) is None and trace.ids(right) is None:
        _count_vector(trace, left, out)
        lost(trace, func, [e for e in (left_elements, right_elements) if e is not None])
        return None
    if right_elements is not None:
        return _project(trace, func, (left, right_elements, -1), args, out, bias)
    if left_elements is not None:
        flipped = left_elements.view(lambda index: index.transpose(-1, -2) if index.dim() > 1 else index)
        return _project(trace, func, (right, flipped, -2), args, out, bias)
    if left.dim() < 2 or right.dim() < 2:
        _count_vector(trace, left, out)
        return unknown(trace, func, args, kwargs, out)
    return _between_activations(trace, func, left, right, out)


def _count_vector(trace: Tracer, matrix: Tensor, out: Tensor) -> None:
    """A matrix times a vector of which no neurons are known; products of two vectors do not count."""
    if out.dim() == 1:
        trace.builder.multiply(torch.zeros(1, dtype=torch.int64), matrix.numel())


def embedding(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """A lookup is a contraction with a one-hot input: one source, as many taps as there are words."""
    elements = trace.elements(args[0])
    if elements is None or elements.index.dim() != 2:
        return unknown(trace, func, args, kwargs, out)
    block = elements.view(lambda index: index.t()[None, :, None, :])
    sources = torch.full((1, 1), CONSTANT)
    destinations = trace.builder.contract(block, sources, (elements.index.size(0),), 0)
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
    if elements.index.numel() == 0:
        opaque(trace, func, args, out, 0, "without elements")
        return None
    block = elements.view(lambda index: index.transpose(-1, -2).reshape(-1, outof, into, 1))
    ids, groups = _ids(trace, source), block.index.size(0)
    parts = [ids] if groups == 1 else list(ids)
    channels = torch.stack([_along(trace, part, axis) for part in parts])
    destinations = trace.builder.contract(block, channels, (), source.numel() // (into * groups))
    if destinations is None:
        opaque(trace, func, args, out, source.numel() * outof)
        return None
    if groups == 1:
        laid = _lay(destinations[0], out, -1 if axis == -1 or out.dim() == 1 else -2)
    else:
        laid = destinations.view((groups, 1, -1) if axis == -1 else (groups, -1, 1)).expand(out.shape)
    _attach_bias(trace, bias, laid)
    return laid


@dataclass(frozen=True, eq=False)
class _Operand:
    """One side of a product between activations, (batch, free, contracted) for both sides.

    Attributes:
        ids: shape (batch, free or 1, contracted or 1): along the contracted axis where neurons lie there, else along
            the free one.
        contracted: whether neurons are contracted.
        free: whether neurons lie along the free axis.
        varies: whether the ids differ along the batch (heads).
    """

    ids: Ids
    contracted: bool
    free: bool
    varies: bool

    def rows(self, trace: Tracer) -> Ids | None:
        """The neurons that stand for the heads, shape (batch, 1, 1); None where all heads are one."""
        if not self.varies:
            return None
        axis = 2 if self.contracted else 1
        return trace.heads.collapse(self.ids, axis) if self.contracted or self.free else self.ids[:, :1, :1]


def _operand(trace: Tracer, ids: Ids) -> _Operand:
    contracted = _is_neuron_axis(trace, ids, 2)
    ids = trace.neurons.tie_along(ids, [1 if contracted else 2]).expand(
        ids.size(0), 1 if contracted else ids.size(1), ids.size(2) if contracted else 1
    )
    axes = varying(ids)
    return _Operand(ids, contracted, not contracted and 1 in axes, 0 in axes)


def _without_inputs(trace: Tracer, side: _Operand) -> _Operand:
    """The side without the neurons of the model's inputs: they are locked, and nothing has to know where they lie."""
    if not trace.neurons.are_inputs(side.ids):
        return side
    return _Operand(torch.full((1, 1, 1), CONSTANT), contracted=False, free=False, varies=False)


def _between_activations(trace: Tracer, func: Any, left: Tensor, right: Tensor, out: Tensor) -> Label:
    """(…, m, k) @ (…, k, n): the contracted neurons are coupled, the free ones pass on; heads lie along the batch."""
    m, k, n = left.size(-2), left.size(-1), right.size(-1)
    a = _operand(trace, _ids(trace, left).reshape(-1, m, k))
    b = _operand(trace, _ids(trace, right).reshape(-1, k, n).transpose(1, 2))
    if a.free and b.free:  # one of them may be the matrix that a model is given, such as the edges of a graph
        a, b = (_without_inputs(trace, side) for side in (a, b))
    heads = trace.heads
    if a.contracted and b.contracted:
        counted = _contract(trace, a, b)
        trace.builder.multiply(counted, m * n)
        return heads.collapse(counted, 2).expand(-1, m, n).reshape(out.shape)
    for mixed in (a, b):
        if mixed.contracted or (a.free and b.free):
            reason = "two neuron axes meet in one product" if a.free and b.free else _MIXED
            trace.neurons.lock(mixed.ids, reason, "column" if mixed.varies else "both")
    rows_a, rows_b = a.rows(trace), b.rows(trace)
    if rows_a is not None and rows_b is not None:
        heads.align(rows_a, rows_b)
    rows = next((r for r in (rows_a, rows_b) if r is not None), torch.zeros(1, 1, 1, dtype=torch.int64))
    batch = out.numel() // (m * n)
    if a.free != b.free:
        passed = a if a.free else b
        ids = passed.ids if passed.varies or rows.size(0) == 1 else heads.cross(rows, passed.ids)
        ids = ids.expand(batch, -1, 1)
        trace.builder.multiply(ids, k * (n if a.free else m))
        ids = ids if a.free else ids.transpose(1, 2)
    else:
        ids = rows.expand(batch, 1, 1)
        trace.builder.multiply(ids, m * k * n)
    return ids.expand(batch, m, n).reshape(out.shape)


_MIXED = "neurons are mixed by a product with another activation"


def _contract(trace: Tracer, a: _Operand, b: _Operand) -> Ids:
    """Couple the contracted neurons; returns those that the product's cost is counted by, (batch, 1, contracted)."""
    heads = trace.heads
    if a.varies == b.varies:
        trace.neurons.tie(a.ids, b.ids)
        heads.spread(b.ids)
        return a.ids
    several, one = (a, b) if a.varies else (b, a)
    trace.neurons.tie_columns(several.ids, one.ids)
    heads.share(one.ids)
    return several.ids


def _is_neuron_axis(trace: Tracer, ids: Ids, axis: int) -> bool:
    """Whether different neurons, not just positions of the same ones, lie along ``axis``."""
    return axis % ids.dim() in varying(ids) and not trace.neurons.same(ids, axis % ids.dim())


def _ids(trace: Tracer, tensor: Tensor) -> Ids:
    ids = trace.ids(tensor)
    return torch.full((1,) * tensor.dim(), CONSTANT).expand(tensor.shape) if ids is None else ids


def _along(trace: Tracer, ids: Ids, axis: int) -> Ids:
    """One id for every index along ``axis``; all that lie across it meet the same weights and are tied."""
    others = [d for d in range(ids.dim()) if d != axis % ids.dim()]
    head = trace.neurons.tie_along(ids, others)
    return head.reshape(-1).expand(ids.size(axis)) if head.numel() == 1 else head.reshape(-1)


def _lay(neurons: Ids, out: Tensor, axis: int) -> Ids:
    """One id per index along ``axis``, the same at every position."""
    shape = [1] * out.dim()
    shape[axis] = -1
    return neurons.view(shape).expand(out.shape)


def _is_layer(weight: Elements) -> bool:
    """Whether a matrix is a linear layer's: these keep it (out, in), and turn it over to multiply; or it, repeated."""
    index = weight.index
    turned = index.is_meta and index.dim() > 1 and index.stride(-2) == 1 < index.stride(-1)
    return turned and (index.dim() == 2 or index.stride(0) == 0) and not weight.companions


def _attach_bias(trace: Tracer, bias: object, ids: Ids) -> None:
    """A bias that is a parameter belongs to the neurons along the last dimension."""
    elements = trace.elements(bias)
    if elements is not None:
        attach_features(trace, elements, ids, "bias")
