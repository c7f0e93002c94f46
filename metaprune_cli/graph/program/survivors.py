"""Which positions of every tensor of a recorded program are left once units are gone."""

from __future__ import annotations

import functools
from collections.abc import Hashable

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.axes import place_of
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import alive_neurons, survivors
from metaprune_cli.graph.trace.labels import Elements, Label, squeeze_constant
from metaprune_cli.graph.trace.neurons import CONSTANT
from metaprune_cli.graph.trace.regular import NOWHERE

Survivors = tuple[Tensor | None, ...]
"""Per dimension a bool mask of the positions that stay; None where all of them do."""


class SurvivorMap:
    """Survivors by what a tensor carries: its neurons, or the state-dict elements it consists of."""

    def __init__(self, graph: NeuronGraph, kept: Tensor) -> None:
        self._neurons = alive_neurons(graph, kept)
        self._graph, self._kept = graph, kept
        self._known: dict[Hashable, tuple[Label, Survivors]] = {}

    @functools.cached_property
    def _entries(self) -> dict[str, tuple[Tensor, ...]]:
        """What stays of every entry that loses something, along each of its dimensions."""
        return {
            name: tuple(
                torch.zeros(size, dtype=torch.bool).index_fill_(0, index, 1)
                for size, index in zip(self._graph.tensors[name].shape, indices, strict=True)
            )
            for name, indices in survivors(self._graph, self._kept).items()
        }

    def of(self, label: Label, dims: int) -> Survivors:
        """The survivors of a tensor with ``dims`` dimensions.

        Raises:
            NumericsError: what stays is not rectangular.
        """
        if label is None:
            return (None,) * dims
        key = _key(label)
        found = self._known.get(key)
        if found is None:  # the label is kept, so that its place in memory stays its own
            found = self._known[key] = (label, self._find(label))
        return found[1]

    def _find(self, label: Tensor | Elements) -> Survivors:
        if isinstance(label, Elements) and (plain := self._of_a_view(label)) is not None:
            return plain
        mask = self._entry_mask(label) if isinstance(label, Elements) else self._neurons[squeeze_constant(label)]
        shape = label.index.shape if isinstance(label, Elements) else label.shape
        if mask is None or bool(mask.all()):
            return (None,) * len(shape)
        somebody = squeeze_constant(label) != CONSTANT if isinstance(label, Tensor) else torch.ones_like(mask)
        everywhere = bool(somebody.all())
        wide = [d for d, size in enumerate(mask.shape) if size > 1]
        if everywhere and len(wide) == 1 and bool(mask.any()):  # one line has no holes: what most tensors are
            return tuple(mask.reshape(-1) if d == wide[0] else None for d in range(mask.dim()))
        lines = _through_one(mask) if everywhere else _over_all(mask & somebody, somebody)
        found: list[Tensor | None] = []
        rectangle = torch.ones((1,) * mask.dim(), dtype=torch.bool)
        for d, along in enumerate(lines):
            whole = mask.size(d) < shape[d] or bool(along.all())
            found.append(None if whole else along)
            rectangle = rectangle & along.view([-1 if o == d else 1 for o in range(mask.dim())])
        if not torch.equal(rectangle & somebody, mask & somebody):
            raise NumericsError(
                "The removal would leave an activation with holes",
                expected="survivors that form an outer product of kept positions per dimension",
                got=f"{int((mask & somebody).count_nonzero())} of {mask.numel()} elements",
            )
        return tuple(found)

    def _of_a_view(self, elements: Elements) -> Survivors | None:
        """What is left along dimensions that are (parts of) the entry's own; None where they are something else."""
        lines, index = self._entries.get(elements.entry), elements.index
        if lines is None or elements.companions or not index.is_meta or index.numel() == 0:
            return None
        shape = [line.numel() for line in lines]
        step, dims = 1, dict[int, int]()
        for d in reversed(range(len(shape))):
            if shape[d] > 1:
                dims[step] = d
            step *= shape[d]
        starts = place_of(int(index.storage_offset()), shape)
        found: list[Tensor | None] = []
        for size, stride in zip(index.size(), index.stride(), strict=True):
            if size == 1 or stride == 0:
                found.append(None)
                continue
            d = dims.pop(stride, -1)
            if d < 0 or starts[d] + size > shape[d]:
                return None
            along = lines[d][starts[d] : starts[d] + size]
            found.append(None if bool(along.all()) else along)
        one_of = (lines[d][starts[d]] for d in dims.values())
        return tuple(found) if all(map(bool, one_of)) else None

    def _entry_mask(self, elements: Elements) -> Tensor | None:
        """What is left of all that the elements were computed from; what pads them stays."""
        masks = [mask for part in elements.alone() if (mask := self._part_mask(part)) is not None]
        return functools.reduce(torch.logical_and, masks) if masks else None

    def _part_mask(self, part: Elements) -> Tensor | None:
        lines = self._entries.get(part.entry)
        if lines is None:
            return None
        mask = functools.reduce(lambda outer, line: outer[..., None] & line, lines, torch.tensor(True)).reshape(-1)
        index = squeeze_constant(part.index)
        if index.is_meta:
            return mask.as_strided(index.size(), index.stride(), index.storage_offset())
        return mask[index] | (index == NOWHERE)


def _key(label: Tensor | Elements) -> Hashable:
    """The same for labels that say the same because they are the same memory, or the same view of an entry."""
    if isinstance(label, Elements) and label.companions:
        return tuple(map(_key, label.alone()))
    tensor = label.index if isinstance(label, Elements) else label
    layout = (tuple(tensor.size()), tensor.stride(), int(tensor.storage_offset()))
    if tensor.is_meta and isinstance(label, Elements):
        return label.entry, *layout
    entry = label.entry if isinstance(label, Elements) else None
    return entry, tensor.data_ptr(), *layout


def _through_one(mask: Tensor) -> list[Tensor]:
    """What survives along each dimension, read along the lines through one survivor."""
    place = place_of(int(mask.reshape(-1).view(torch.uint8).argmax()), mask.shape)
    return [mask[tuple(slice(None) if o == d else i for o, i in enumerate(place))] for d in range(mask.dim())]


def _over_all(stays: Tensor, somebody: Tensor) -> list[Tensor]:
    """What survives along each dimension where part of the tensor is nobody's: there (padding), nobody goes."""
    lines = []
    for d in range(stays.dim()):
        others = [o for o in range(stays.dim()) if o != d]
        along, known = (stays.any(dim=others), somebody.any(dim=others)) if others else (stays, somebody)
        lines.append(along | ~known)
    return lines
