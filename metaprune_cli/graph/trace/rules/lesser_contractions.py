"""Contractions with a parameter that are rarer: embedding bags, bilinear maps, deformable convolutions, experts."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Ids, Label
from metaprune_cli.graph.trace.neurons import CONSTANT
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.rules.contractions import convolution, embedding
from metaprune_cli.graph.trace.rules.moves import as_activation
from metaprune_cli.graph.trace.rules.order import fix_along
from metaprune_cli.graph.trace.tracer import Tracer


def embedding_bag(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """A sum, mean or maximum of embeddings."""
    return (embedding(trace, func, args, kwargs, out[0]), None, None, None)


def deformable_convolution(
    trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> Label:
    """(input, weight, offset, mask, bias, …): a convolution; what says where it looks is locked."""
    source, weight, offset, mask, bias = args[:5]
    groups, offset_groups = args[11], args[12]
    for tensor in (offset, mask):
        ids = trace.ids(tensor)
        if ids is not None:
            trace.neurons.lock(ids, "says where a deformable convolution looks")
    ids = trace.ids(source)
    if ids is not None and offset_groups > 1:
        trace.neurons.lock(ids, "channels of a deformable convolution with several groups of offsets")
    return convolution(trace, func, (source, weight, bias, None, None, None, False, None, groups), kwargs, out)


def distances(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Between the rows of two activations, or an activation and learned points: both lose the same neurons."""
    sides = [as_activation(trace, tensor) for tensor in args[:2]]
    lines = [trace.neurons.tie_along(ids, list(range(ids.dim() - 1))).reshape(-1) for ids in sides if ids is not None]
    if len(lines) < 2 or lines[0].shape != lines[1].shape:
        return unknown(trace, func, args, kwargs, out)
    trace.neurons.tie(*lines)
    return None


def trilinear(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Label:
    """nn.Bilinear, y_o = Σ_ij x_i W_oij z_j: edges from x to y with as many taps as z has neurons; z is locked."""
    first, weight, second = args[:3]
    elements = trace.elements(weight)
    if elements is None or elements.index.dim() != 3:
        return unknown(trace, func, args, kwargs, out)
    ids = _last_axis(trace, first)
    other = trace.ids(second)
    if other is not None:
        trace.neurons.lock(other, "the second input of a bilinear map")
    block = elements.view(lambda index: index[None])
    sources = torch.full((1, block.index.size(2)), CONSTANT) if ids is None else ids
    destinations = trace.builder.contract(block, sources, (block.index.size(3),), out.numel() // out.size(-1))
    if destinations is None:
        return unknown(trace, func, args, kwargs, out)
    return destinations.reshape(-1).expand(out.shape)


WHOLE = 8
"""The kernel reads rows of 16 bytes: eight numbers of half precision, four of single, which eight are as well."""


def grouped_product(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Label:
    """(rows, in) @ (experts, in, out), each row by one of the experts: their matrices lie between the same neurons.

    Which rows go to which expert depends on data; they count as dealt out evenly. Neurons go in groups as large as the
    kernel's alignment, so that what is left can be multiplied by it too.
    """
    source, weight = args[:2]
    elements = trace.elements(weight)
    if elements is None or elements.index.dim() != 3 or source.dim() != 2 or trace.elements(source) is not None:
        return unknown(trace, func, args, kwargs, out)
    ids = trace.ids(source)
    channels = torch.full((1, source.size(1)), CONSTANT) if ids is None else trace.neurons.tie_along(ids, [0])
    experts, found = elements.index.size(0), []
    for expert in range(experts):
        block = elements.view(partial(_matrix, expert))
        made = trace.builder.contract(block, channels, (), (source.size(0) + expert) // experts)
        if made is None:
            return unknown(trace, func, args, kwargs, out)
        found.append(made)
    for made in found[1:]:
        trace.neurons.tie(found[0], made)
    for ends in (channels, found[0]):
        trace.neurons.tie_along(ends.reshape(-1, math.gcd(ends.size(1), WHOLE)), [1])
    return found[0].expand(out.shape)


def _matrix(expert: int, index: Tensor) -> Tensor:
    """Of the weight's elements those of one expert, as (1, out, in, 1)."""
    return index[expert].t()[None, :, :, None]


def _last_axis(trace: Tracer, tensor: Tensor) -> Ids | None:
    """One id for each index along the axis of length > 1 that neurons lie along, as (1, in)."""
    ids = trace.ids(tensor)
    if ids is None:
        return None
    axis = next(d for d in range(ids.dim() - 1, -1, -1) if ids.size(d) > 1)
    fixed = fix_along(trace, ids, [d for d in range(ids.dim()) if d != axis], "a bilinear map of several axes")
    return None if fixed is None else fixed.reshape(1, -1)
