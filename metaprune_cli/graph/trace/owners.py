"""Whose the elements of a parameter are, and whether each has somebody."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metaprune_cli.graph.components import unique_pairs
from metaprune_cli.graph.structure import EdgeBlock, Feature
from metaprune_cli.graph.trace.labels import Elements, Ids, compact
from metaprune_cli.graph.trace.neurons import CONSTANT
from metaprune_cli.graph.trace.regular import NOWHERE


def one_end(factor: Elements) -> tuple[int, Elements] | None:
    """The end of the edges (0: out, 1: in) along which alone a factor's elements differ, and these; None for both."""
    index = factor.real()[0]
    if index.size(2) > 1 and not torch.equal(index, index[..., :1].expand_as(index)):
        return None
    index = index[..., 0]
    for axis in (0, 1):
        line = index.select(1 - axis, 0)
        if bool((line != NOWHERE).all()) and index.stride(1 - axis) == 0 and line.unique().numel() == line.numel():
            return axis, Elements(factor.entry, line)
    return None


def one_owner_each(index: Ids, neurons: Ids) -> Tensor | None:
    """Every element and its neuron, shape (2, n), constants left out; None where an element has more than one."""
    small, owners = compact([index, neurons.expand(index.shape)])
    pairs = unique_pairs(torch.stack([small.reshape(-1), owners.reshape(-1)]))
    pairs = pairs[:, pairs[0] != NOWHERE]
    return pairs[:, pairs[1] > CONSTANT] if pairs[0].unique().numel() == pairs.size(1) else None


def coverage(numel: int, blocks: list[EdgeBlock], features: list[Feature]) -> Tensor | None:
    """How often each element of an entry is in the graph; None where one whole block or feature is all there is."""
    sizes = [math.prod(b.size) for b in blocks] + [f.elements.numel() for f in features]
    if sizes == [numel] and (blocks or features[0].elements.unique().numel() == numel):
        return None
    count = torch.zeros(numel, dtype=torch.uint8)
    for block in blocks:
        region = count.as_strided(block.size, block.stride, block.offset)
        region += 1
    for feature in features:
        count.index_add_(0, feature.elements, torch.ones(feature.elements.numel(), dtype=torch.uint8))
    return count
