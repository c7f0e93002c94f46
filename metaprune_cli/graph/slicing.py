"""What is left of a model when units are removed: MACs, parameters, masks and slices, all from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.axes import Axes
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
    owners = owners_of(graph.blocks, graph.features)
    axes = graph.structure.derive(Axes.of, tuple((name, tuple(graph.tensors[name].shape)) for name in owners))
    left = axes.left(alive)
    found: dict[str, tuple[Tensor, ...]] = {}
    masked = set(axes.undecided)
    for entry in axes.entries:
        cut = [None if axis is None else left[axis] for axis in entry.axes]
        lost = any(index is not None for index in cut)
        if not (lost or entry.blocks):
            continue
        empty = any(index is not None and not len(index) for index in cut)  # then nothing is left along any dimension
        indices = tuple(
            torch.arange(0 if empty else size) if index is None or empty else index
            for size, index in zip(entry.shape, cut, strict=True)
        )
        if entry.blocks and not _is_whole(entry.blocks, indices, alive):
            masked.add(entry.name)
        elif lost:
            found[entry.name] = indices
    for name, (blocks, features) in owners.items():
        if name in masked and _loses(blocks, features, alive):
            found[name] = _checked(name, _mask(graph.tensors[name].shape, blocks, features, alive))
    _LAST[graph] = kept.clone(), found
    return found


def _is_whole(blocks: Sequence[EdgeBlock], indices: tuple[Tensor, ...], alive: Tensor) -> bool:
    """Whether as many elements survive as the outer product of the indices has."""
    return sum(_alive_elements(block, alive) for block in blocks) == math.prod(index.numel() for index in indices)


def _checked(name: str, mask: Tensor) -> tuple[Tensor, ...]:
    try:
        return kept_indices(mask)
    except NumericsError as error:
        raise NumericsError(error.what, where=name, got=error.details["got"]) from None


def _loses(blocks: list[EdgeBlock], features: list[Feature], alive: Tensor) -> bool:
    used = [ids for block in blocks for ids in (block.destinations, block.sources)] + [f.neurons for f in features]
    return not all(bool(alive[ids].all()) for ids in used)


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
