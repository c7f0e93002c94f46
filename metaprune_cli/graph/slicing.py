"""What is left of a model when units are removed: MACs, parameters, masks and slices, all from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.axes import Axes, EntryAxes
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock, Feature, owners_of

Kept = Bool[Tensor, " units"]
"""Which units stay."""
Cuts = Mapping[str, Sequence[tuple[int, Tensor]]]
"""Per entry that loses elements the dimensions that are cut, each with the indices that survive, ascending."""

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


@dataclass(frozen=True, eq=False)
class Cutting:
    """All that is the same for every removal from one graph.

    Attributes:
        graph: of which only the structure and the entries' shapes matter.
        owners: the blocks and features of every entry.
        axes: the neurons along the entries' dimensions.
    """

    graph: NeuronGraph
    owners: Mapping[str, tuple[list[EdgeBlock], list[Feature]]]
    axes: Axes

    @classmethod
    def of(cls, graph: NeuronGraph) -> Cutting:
        """That of a graph."""
        owners = owners_of(graph.blocks, graph.features)
        shapes = tuple((name, tuple(graph.tensors[name].shape)) for name in owners)
        return cls(graph, owners, graph.structure.derive(Axes.of, shapes))

    def cuts(self, kept: Kept) -> Cuts:
        """What is left of every entry that loses elements; a mask only where it takes one.

        Raises:
            NumericsError: the survivors of an entry are not an outer product of indices per dimension; names it.
        """
        alive = alive_neurons(self.graph, kept)
        left = self.axes.left(alive)
        found: dict[str, Sequence[tuple[int, Tensor]]] = {}
        for name, axes in self._rectangles:
            if lost := [(dim, index) for dim, axis in axes if (index := left[axis]) is not None]:
                found[name] = lost
        masked = set(self.axes.undecided)
        for entry in self._counted:
            lost = [(d, index) for d, a in enumerate(entry.axes) if a is not None and (index := left[a]) is not None]
            if not _is_whole(entry.blocks, entry.shape, lost, alive):
                masked.add(entry.name)
            elif lost:
                found[entry.name] = lost
        if any(index is not None and not len(index) for index in left):
            found |= {name: _nothing(len(self.graph.tensors[name].shape)) for name in found if _is_empty(found[name])}
        for name, (blocks, features) in self.owners.items():
            if name in masked and _loses(blocks, features, alive):
                shape = self.graph.tensors[name].shape
                found[name] = list(enumerate(_checked(name, _mask(shape, blocks, features, alive))))
        return found

    @cached_property
    def _rectangles(self) -> list[tuple[str, list[tuple[int, int]]]]:
        """The entries of which a rectangle stays whatever goes: the axis of every dimension that has one."""
        plain = [entry for entry in self.axes.entries if not entry.blocks]
        return [(entry.name, [(d, a) for d, a in enumerate(entry.axes) if a is not None]) for entry in plain]

    @cached_property
    def _counted(self) -> list[EntryAxes]:
        return [entry for entry in self.axes.entries if entry.blocks]


def _is_empty(lost: Sequence[tuple[int, Tensor]]) -> bool:
    return any(not len(index) for _, index in lost)


def _nothing(dims: int) -> list[tuple[int, Tensor]]:
    """Where nothing is left along one dimension, nothing is along any."""
    return [(dim, torch.arange(0)) for dim in range(dims)]


def survivors(graph: NeuronGraph, kept: Kept) -> dict[str, tuple[Tensor, ...]]:
    """Per dimension the indices that survive, for every entry that loses elements; a mask only where it takes one.

    Raises:
        NumericsError: the survivors of an entry are not an outer product of indices per dimension; names the entry.
    """
    last = _LAST.get(graph)
    if last is not None and torch.equal(last[0], kept):
        return last[1]
    found: dict[str, tuple[Tensor, ...]] = {}
    for name, cut in Cutting.of(graph).cuts(kept).items():
        along = dict(cut)
        shape = graph.tensors[name].shape
        found[name] = tuple(along[d] if d in along else torch.arange(size) for d, size in enumerate(shape))
    _LAST[graph] = kept.clone(), found
    return found


def _is_whole(
    blocks: Sequence[EdgeBlock], shape: Sequence[int], lost: Sequence[tuple[int, Tensor]], alive: Tensor
) -> bool:
    """Whether as many elements survive as the outer product of the indices has."""
    left = list(shape)
    for dim, index in lost:
        left[dim] = index.numel()
    return sum(_alive_elements(block, alive) for block in blocks) == math.prod(left)


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
