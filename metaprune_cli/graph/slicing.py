"""What is left of a model when units are removed: MACs, parameters, masks and slices, all from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock, Feature, owners_of

Kept = Bool[Tensor, " units"]
"""Which units stay."""

_LAST: WeakKeyDictionary[NeuronGraph, tuple[Tensor, dict[str, tuple[Tensor, ...]]]] = WeakKeyDictionary()
"""What the last removal from a graph left: several ask in a row."""


def alive_neurons(graph: NeuronGraph, kept: Kept) -> Bool[Tensor, " neurons"]:
    """Which neurons stay."""
    return graph.units.alive(kept)


def macs_of(graph: NeuronGraph, kept: Kept) -> int:
    """Multiply-accumulates of one sample once the other units are gone."""
    alive = alive_neurons(graph, kept)
    blocks = sum(_alive_elements(block, alive) * block.positions for block in graph.blocks)
    return blocks + sum(int(alive[p.neurons].sum()) * p.macs_per_neuron for p in graph.products)


def params_of(graph: NeuronGraph, kept: Kept) -> int:
    """Trainable parameters once the other units are gone."""
    alive = alive_neurons(graph, kept)
    total = sum(graph.tensors[name].numel() for name in graph.trainable)
    for block in graph.blocks:
        if block.param in graph.trainable:
            total -= math.prod(block.size) - _alive_elements(block, alive)
    for feature in graph.features:
        if feature.name in graph.trainable:
            total -= int((~alive[feature.neurons]).sum())
    return total


def masks(graph: NeuronGraph, kept: Kept) -> dict[str, Tensor]:
    """A boolean mask, in the entry's own shape, for every entry that loses elements."""
    alive = alive_neurons(graph, kept)
    return {
        name: _mask(graph.tensors[name].shape, blocks, features, alive)
        for name, (blocks, features) in owners_of(graph.blocks, graph.features).items()
        if _loses(blocks, features, alive)
    }


def kept_indices(mask: Tensor) -> tuple[Tensor, ...]:
    """Per dimension the indices that survive.

    Raises:
        NumericsError: the survivors are not an outer product of indices per dimension.
    """
    kept = []
    for d in range(mask.dim()):
        others = [o for o in range(mask.dim()) if o != d]
        kept.append((mask.any(dim=others) if others else mask).nonzero().flatten())
    if int(mask.count_nonzero()) != math.prod(k.numel() for k in kept):
        raise NumericsError(
            "The removal would leave a parameter with holes",
            expected="survivors that form an outer product of kept indices per dimension",
            got=f"{int(mask.count_nonzero())} elements over {[k.numel() for k in kept]} indices",
        )
    return tuple(kept)


def slice_tensors(graph: NeuronGraph, kept: Kept) -> dict[str, Tensor]:
    """The state dict of the smaller model: every entry, sliced where it loses elements.

    Raises:
        NumericsError: the removal would not leave rectangular parameters; names the entry.
    """
    sliced = dict(graph.tensors)
    for name, indices in survivors(graph, kept).items():
        tensor = graph.tensors[name]
        for d, index in enumerate(indices):
            if index.numel() < tensor.size(d):
                tensor = tensor.index_select(d, index.to(tensor.device))
        sliced[name] = tensor
    for alias, name in graph.aliases.items():
        sliced[alias] = sliced[name]
    return sliced


def survivors(graph: NeuronGraph, kept: Kept) -> dict[str, tuple[Tensor, ...]]:
    """Per dimension the indices that survive, for every entry that loses elements; a mask only where it takes one.

    Raises:
        NumericsError: the survivors of an entry are not an outer product of indices per dimension; names the entry.
    """
    last = _LAST.get(graph)
    if last is not None and torch.equal(last[0], kept):
        return last[1]
    alive = alive_neurons(graph, kept)
    found: dict[str, tuple[Tensor, ...]] = {}
    for name, (blocks, features) in owners_of(graph.blocks, graph.features).items():
        if _loses(blocks, features, alive):
            shape = graph.tensors[name].shape
            indices = _product_of_indices(shape, blocks, features, alive)
            found[name] = _checked(name, _mask(shape, blocks, features, alive)) if indices is None else indices
    _LAST[graph] = kept.clone(), found
    return found


def _checked(name: str, mask: Tensor) -> tuple[Tensor, ...]:
    try:
        return kept_indices(mask)
    except NumericsError as error:
        raise NumericsError(error.what, where=name, got=error.details["got"]) from None


def _loses(blocks: list[EdgeBlock], features: list[Feature], alive: Tensor) -> bool:
    used = [ids for block in blocks for ids in (block.destinations, block.sources)] + [f.neurons for f in features]
    return not all(bool(alive[ids].all()) for ids in used)


def _product_of_indices(
    shape: torch.Size, blocks: list[EdgeBlock], features: list[Feature], alive: Tensor
) -> tuple[Tensor, ...] | None:
    """Per dimension the union of what survives of each owner, if as many elements survive as that outer product has.

    Returns:
        None where that does not decide: elements that are nobody's, a block that is no region along the dimensions, or
        survivors that are no outer product.
    """
    owned = sum(math.prod(block.size) for block in blocks) + sum(f.elements.numel() for f in features)
    if owned != shape.numel():
        return None
    along = [torch.zeros(size, dtype=torch.bool) for size in shape]
    left = 0
    for block in blocks:
        if not _mark_block(along, block, alive):
            return None
        left += _alive_elements(block, alive)
    for feature in features:
        elements = feature.elements[alive[feature.neurons]]
        left += elements.numel()
        for mark, digit in zip(along, _digits(elements, shape), strict=True):
            mark[digit] = True
    indices = tuple(mark.nonzero().flatten() for mark in along)
    return indices if math.prod(index.numel() for index in indices) == left else None


def _mark_block(along: list[Tensor], block: EdgeBlock, alive: Tensor) -> bool:
    """Mark per dimension where a block has survivors; False where its axes do not lie along the dimensions.

    The place of element [g, o, i, t] along dimension d is a sum of one summand for each axis (plus the offset's), as
    long as no sum is carried over into the next dimension.
    """
    if any(step <= 0 and size > 1 for step, size in zip(block.stride, block.size, strict=True)):
        return False
    shape = [mark.numel() for mark in along]
    out, into = alive[block.destinations], alive[block.sources]
    out, into = out & into.any(1, keepdim=True), into & out.any(1, keepdim=True)
    steps = [_axis(size, stride, shape) for size, stride in zip(block.size, block.stride, strict=True)]
    starts = place_of(block.offset, shape)
    for mark, start, group, row, column, tap in zip(along, starts, *steps, strict=True):
        highest = [0 if places is None else int(places.max()) for places in (group, row, column, tap)]
        if start + sum(highest) >= mark.numel() or (highest[1] and highest[2]):
            return False
        places, stays = (column, into) if highest[2] else (row, out)
        first = torch.full((1, 1), start) if group is None else start + group[:, None]
        left = (first if places is None else first + places).expand(stays.shape)[stays]
        mark[left if tap is None else (left[:, None] + tap).reshape(-1)] = True
    return True


def _axis(size: int, stride: int, shape: list[int]) -> list[Tensor | None]:
    """Per dimension of a row-major tensor the places of ``size`` elements in steps of ``stride``; None for all zero."""
    inner = math.prod(shape) or 1
    places: list[Tensor | None] = [None] * len(shape)
    for d, length in enumerate(shape):
        outer, inner = inner, inner // max(length, 1)
        if stride % inner == 0 and (size - 1) * stride < outer:  # they lie along this dimension alone
            if size > 1:
                places[d] = torch.arange(size) * (stride // inner)
            return places
    return [digit if bool(digit.any()) else None for digit in _digits(torch.arange(size) * stride, shape)]


def place_of(element: int, shape: Sequence[int]) -> list[int]:
    """The indices of a flat element number of a row-major tensor."""
    place = []
    for size in reversed(shape):
        place.append(element % size)
        element //= size
    return place[::-1]


def _digits(elements: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Per dimension the place of flat element numbers of a row-major tensor."""
    if len(shape) == 1:
        return [elements]
    digits = []
    for size in reversed(shape):
        digits.append(elements % size)
        elements = elements // size
    return digits[::-1]


def _mask(shape: torch.Size, blocks: list[EdgeBlock], features: list[Feature], alive: Tensor) -> Tensor:
    """The full mask of one entry."""
    mask = torch.ones(shape.numel(), dtype=torch.bool)
    for block in blocks:
        region = mask.as_strided(block.size, block.stride, block.offset)
        region &= alive[block.destinations][:, :, None, None] & alive[block.sources][:, None, :, None]
    for feature in features:
        mask[feature.elements] &= alive[feature.neurons]
    return mask.view(shape)


def _alive_elements(block: EdgeBlock, alive: Tensor) -> int:
    out = alive[block.destinations].sum(1)
    into = alive[block.sources].sum(1)
    return int((out * into).sum()) * block.size[3]
