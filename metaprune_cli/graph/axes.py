"""Which neurons lie at every index of every dimension of every entry: found once, it says what any removal cuts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from metaprune_cli.graph.structure import EdgeBlock, Feature, Structure, owners_of

_MOST_ALTERNATIVES = 64
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class EntryAxes:
    """The dimensions of one entry.

    Attributes:
        name: of the entry.
        shape: of the whole entry.
        axes: per dimension the number of its axis; None where nothing is ever cut along it.
        blocks: what has to be counted to know that nothing but a rectangle stays; () where it cannot be otherwise.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int | None, ...]
    blocks: tuple[EdgeBlock, ...]


@dataclass(frozen=True, eq=False)
class Axes:
    """Those of all entries that neurons own.

    Attributes:
        neurons: for every distinct axis the neurons at its indices, int64, shape (indices, alternatives): an index
            stays as long as one of them does.
        entries: the entries that are cut along their dimensions.
        undecided: those of which only a mask can tell.
    """

    neurons: tuple[Tensor, ...]
    entries: tuple[EntryAxes, ...]
    undecided: frozenset[str]

    @staticmethod
    def of(structure: Structure, shapes: Shapes) -> Axes:
        """Those of a structure whose entries have these shapes."""
        number: dict[tuple[torch.Size, bytes], int] = {}
        neurons: list[Tensor] = []
        entries, undecided = [], set()
        owners = owners_of(structure.blocks, structure.features)
        for name, shape in shapes:
            blocks, features = owners[name]
            found = _axes_of(shape, blocks, features, structure.num_neurons)
            if found is None:
                undecided.add(name)
                continue
            axes: list[int | None] = []
            for axis in found:
                if axis is None:
                    axes.append(None)
                    continue
                place = number.setdefault((axis.shape, axis.numpy().tobytes()), len(neurons))
                if place == len(neurons):
                    neurons.append(axis)
                axes.append(place)
            entries.append(EntryAxes(name, shape, tuple(axes), () if _always_whole(blocks) else tuple(blocks)))
        return Axes(tuple(neurons), tuple(entries), frozenset(undecided))

    def left(self, alive: Bool[Tensor, " neurons"]) -> list[Tensor | None]:
        """For every axis the indices that stay, int64; None where all do."""
        with_ends = torch.cat([alive, torch.tensor([True, False])])
        flat, axis_of, starts, sizes = self._flat
        stays = with_ends[flat[:, 0]] if flat.size(1) == 1 else with_ends[flat].any(1)
        where = stays.nonzero().flatten()
        counts = torch.zeros(len(sizes), dtype=torch.int64).index_add_(0, axis_of, stays.long()).tolist()
        pieces = (where - starts[where]).split(counts)
        return [None if count == size else piece for piece, count, size in zip(pieces, counts, sizes, strict=True)]

    @cached_property
    def _flat(self) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """All axes end to end, for few operations: neurons, and for each place its axis and where that begins; sizes.

        Where alternatives are fewer than the most, the last of them is there again.
        """
        most = max((ids.size(1) for ids in self.neurons), default=1)
        wide = [torch.cat([ids, ids[:, -1:].expand(-1, most - ids.size(1))], 1) for ids in self.neurons]
        sizes = [len(ids) for ids in self.neurons]
        lengths = torch.tensor(sizes, dtype=torch.int64)
        axis_of = torch.arange(len(sizes)).repeat_interleave(lengths)
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        return torch.cat([torch.empty(0, most, dtype=torch.int64), *wide]), axis_of, starts, sizes


def _always_whole(blocks: Sequence[EdgeBlock]) -> bool:
    """Whether what stays is a rectangle whatever goes: one matrix, with neurons along two dimensions."""
    return not blocks or (len(blocks) == 1 and blocks[0].size[0] == 1 and min(blocks[0].size[1:3]) > 1)


def _axes_of(
    shape: Sequence[int], blocks: Sequence[EdgeBlock], features: Sequence[Feature], num_neurons: int
) -> list[Tensor | None] | None:
    """The neurons along each dimension of one entry; None where its owners are no regions along the dimensions."""
    owned = sum(math.prod(block.size) for block in blocks) + sum(f.elements.numel() for f in features)
    if owned != math.prod(shape) or (features and (blocks or len(features) > 1)):
        return None
    if features:
        return _along_feature(features[0], shape)
    columns = [_Columns(size, num_neurons) for size in shape]
    for block in blocks:
        if not _add_block(columns, block):
            return None
    return [along.neurons() for along in columns]


def _along_feature(feature: Feature, shape: Sequence[int]) -> list[Tensor | None] | None:
    """A feature that is the whole entry, whose neurons change along one dimension at most."""
    grid = torch.empty(math.prod(shape), dtype=torch.int64)
    grid[feature.elements] = feature.neurons
    grid = grid.view(tuple(shape))
    varies = [d for d, size in enumerate(shape) if size > 1 and not bool((grid == grid.narrow(d, 0, 1)).all())]
    if len(varies) > 1:
        return None
    along: list[Tensor | None] = [None] * len(shape)
    if not shape:
        return along
    d = varies[0] if varies else max(range(len(shape)), key=shape.__getitem__)
    index = [slice(None) if dim == d else 0 for dim in range(len(shape))]
    along[d] = grid[tuple(index)].reshape(-1, 1).contiguous()
    return along


class _Columns:
    """The neurons along one dimension, while its blocks are met one after the other."""

    def __init__(self, size: int, num_neurons: int) -> None:
        self._always, self._never = num_neurons, num_neurons + 1
        self._columns: list[Tensor] = []
        self._size = size

    def add(self, places: Tensor, neurons: Tensor | None) -> None:
        """Indices (n,), and the neurons at each, (n, alternatives); None: they stay whatever goes."""
        if neurons is None:
            neurons = torch.full((len(places), 1), self._always)
        for column in neurons.unbind(1):
            free = next((own for own in self._columns if self._fits(own, places, column)), None)
            if free is None:
                free = torch.full((self._size,), self._never)
                self._columns.append(free)
            free[places] = column

    def _fits(self, own: Tensor, places: Tensor, column: Tensor) -> bool:
        there = own[places]
        return bool(((there == self._never) | (there == column)).all())

    def neurons(self) -> Tensor | None:
        """All of them, (indices, alternatives); None where none can go."""
        found = torch.stack(self._columns, 1)
        return None if bool((found == self._always).any(1).all()) else found


def _add_block(columns: Sequence[_Columns], block: EdgeBlock) -> bool:
    """Enter a block's neurons; False where its axes do not lie along the dimensions.

    The place of element [g, o, i, t] along dimension d is a sum of one summand for each axis (plus the offset's), as
    long as no sum is carried over into the next dimension.
    """
    if any(step <= 0 and size > 1 for step, size in zip(block.stride, block.size, strict=True)):
        return False
    shape = [column._size for column in columns]
    steps = [_axis(size, stride, shape) for size, stride in zip(block.size, block.stride, strict=True)]
    starts = place_of(block.offset, shape)
    for column, start, group, row, into, tap in zip(columns, starts, *steps, strict=True):
        highest = [0 if places is None else int(places.max()) for places in (group, row, into, tap)]
        if start + sum(highest) >= column._size or (row is not None and into is not None):
            return False
        if not _enter(column, block, start, group, row, into, tap):
            return False
    return True


def _enter(
    column: _Columns,
    block: EdgeBlock,
    start: int,
    group: Tensor | None,
    row: Tensor | None,
    into: Tensor | None,
    tap: Tensor | None,
) -> bool:
    """What one block has along one dimension; False where any of too many neurons would keep an index."""
    places = row if into is None else into
    if places is None and group is None:
        column.add(start + (torch.zeros(1, dtype=torch.int64) if tap is None else tap), None)
        return True
    neurons = block.destinations if into is None else block.sources  # (groups, n)
    if places is None:
        assert group is not None
        at = start + group
    elif group is None:
        at, neurons = start + places, neurons.t()
    else:
        at, neurons = (start + group[:, None] + places).reshape(-1), neurons.reshape(-1, 1)
    if tap is not None:
        at, neurons = (at[:, None] + tap).reshape(-1), neurons.repeat_interleave(len(tap), 0)
    if neurons.size(1) > _MOST_ALTERNATIVES:  # each is compared with all before it
        return False
    column.add(at, neurons)
    return True


def _axis(size: int, stride: int, shape: Sequence[int]) -> list[Tensor | None]:
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


def _digits(elements: Tensor, shape: Iterable[int]) -> list[Tensor]:
    """Per dimension the place of flat element numbers of a row-major tensor."""
    digits = []
    for size in reversed(tuple(shape)):
        digits.append(elements % size)
        elements = elements // size
    return digits[::-1]


def place_of(element: int, shape: Sequence[int]) -> list[int]:
    """The indices of a flat element number of a row-major tensor."""
    place = []
    for size in reversed(shape):
        place.append(element % size)
        element //= size
    return place[::-1]
