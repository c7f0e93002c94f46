"""What a drawing of a neuron graph shows: layers in order of execution, who reads whom, and what is coupled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock
from metaprune_cli.graph.units import Units


@dataclass(frozen=True)
class Reading:
    """One edge block, seen from the layer that it makes.

    Attributes:
        param: the state-dict entry.
        sources: the rows that it reads.
        size: (groups, out per group, in per group, taps).
        kernel: shape of the grid of taps.
        macs: multiply-accumulates of one sample.
    """

    param: str
    sources: tuple[int, ...]
    size: tuple[int, int, int, int]
    kernel: tuple[int, ...]
    macs: int


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        name: of the layer.
        group: the part of the network that it lies in, a prefix of the name; "" for none.
        size: number of neurons.
        families: (family, number of the layer's neurons in it), in order of their neurons.
        head_families: the families of heads (units of rows) among them.
        units: how many different units (of columns) its neurons belong to.
        heads: how many different heads its neurons belong to; 0 where there are none.
        readings: the blocks that make it.
        product_macs: multiply-accumulates of activation-by-activation products of its neurons.
        joined: whether it is added to, or multiplied with, an earlier layer.
    """

    name: str
    group: str
    size: int
    families: tuple[tuple[int, int], ...]
    head_families: tuple[int, ...]
    units: int
    heads: int
    readings: tuple[Reading, ...]
    product_macs: int
    joined: bool

    @property
    def macs(self) -> int:
        """Of all that makes the layer."""
        return sum(reading.macs for reading in self.readings) + self.product_macs

    @property
    def label(self) -> str:
        """The name without its group."""
        return self.name.removeprefix(f"{self.group}.") if self.group else self.name


@dataclass(frozen=True)
class Outline:
    """The rows of the drawing from top to bottom, and its vertical lines.

    Attributes:
        rows: the layers, without the one constant neuron and without those of attention scores, a neuron a head.
        reads: for every row that others than its successor read, their rows, ascending.
        couplings: for every family that lies in several rows, these rows, ascending.
    """

    rows: tuple[Row, ...]
    reads: dict[int, tuple[int, ...]]
    couplings: dict[int, tuple[int, ...]]


def outline(graph: NeuronGraph) -> Outline:
    """Everything a drawing needs to know of ``graph``."""
    index = _Index.of(graph)
    readings, products = _readings(graph, index), _products(graph, index)
    joined = set(index.rows_of(graph.identity[1]))
    layers = [graph.layers[number] for number in index.shown]
    groups = _groups([layer.name for layer in layers])
    rows = []
    for number, layer in enumerate(layers):
        neurons = torch.arange(layer.start, layer.start + layer.size)
        heads = graph.units.row_of[neurons]
        heads = heads[heads >= 0].unique()
        rows.append(
            Row(
                name=layer.name,
                group=groups[number],
                size=layer.size,
                families=_families(graph.units, neurons),
                head_families=tuple(graph.units.family_of[heads].unique().tolist()),
                units=graph.units.unit_of[neurons].unique().numel(),
                heads=heads.numel(),
                readings=tuple(readings.get(number, ())),
                product_macs=products.get(number, 0),
                joined=number in joined,
            )
        )
    return Outline(tuple(rows), _reads(rows), _couplings(rows))


def lanes(spans: Sequence[tuple[int, int]]) -> list[int]:
    """A lane for each span of rows such that no two in one lane meet; the spans that start last lie innermost (0).

    Args:
        spans: first and last row of each.
    """
    taken: list[list[tuple[int, int]]] = []
    lane_of = [0] * len(spans)
    for index in sorted(range(len(spans)), key=lambda i: (-spans[i][0], spans[i][1])):
        first, last = spans[index]
        free = (n for n, lane in enumerate(taken) if all(last < other[0] or other[1] < first for other in lane))
        lane_of[index] = next(free, len(taken))
        if lane_of[index] == len(taken):
            taken.append([])
        taken[lane_of[index]].append((first, last))
    return lane_of


@dataclass(frozen=True, eq=False)
class _Index:
    """Which neuron is drawn in which row.

    Attributes:
        starts: first neuron of every layer.
        row: the row of every layer; -1 where it is not shown.
        shown: the layer of every row.
    """

    starts: Int[Tensor, " layers"]
    row: Int[Tensor, " layers"]
    shown: tuple[int, ...]

    @classmethod
    def of(cls, graph: NeuronGraph) -> _Index:
        starts = torch.tensor([layer.start for layer in graph.layers])
        in_blocks = [side.reshape(-1) for block in graph.blocks for side in (block.destinations, block.sources)]
        hidden = torch.zeros(graph.num_neurons, dtype=torch.bool)
        hidden[graph.heads] = True
        hidden[torch.cat([graph.heads.new_empty(0), *in_blocks])] = False
        shown = [
            n for n, layer in enumerate(graph.layers) if n and not hidden[layer.start : layer.start + layer.size].all()
        ]
        row = torch.full_like(starts, -1)
        row[shown] = torch.arange(len(shown))
        return cls(starts, row, tuple(shown))

    def rows_of(self, neurons: Tensor) -> list[int]:
        """The rows in which ``neurons`` lie, ascending."""
        rows = self.row[torch.searchsorted(self.starts, neurons.reshape(-1).unique(), right=True) - 1]
        return [row for row in rows.unique_consecutive().tolist() if row >= 0]


def _readings(graph: NeuronGraph, index: _Index) -> dict[int, list[Reading]]:
    found: dict[int, list[Reading]] = {}
    for block in graph.blocks:
        for row in index.rows_of(block.destinations)[:1]:  # one contraction makes one layer
            found.setdefault(row, []).append(_reading(block, index))
    return found


def _reading(block: EdgeBlock, index: _Index) -> Reading:
    return Reading(block.param, tuple(index.rows_of(block.sources)), block.size, block.kernel, block.macs)


def _products(graph: NeuronGraph, index: _Index) -> dict[int, int]:
    """MACs of activation-by-activation products, row by row."""
    macs = torch.zeros(len(index.starts), dtype=torch.int64)
    for product in graph.products:
        layers = torch.searchsorted(index.starts, product.neurons, right=True) - 1
        macs += product.macs_per_neuron * layers.bincount(minlength=len(index.starts))
    return {row: int(macs[layer]) for row, layer in enumerate(index.shown)}


def _families(units: Units, neurons: Tensor) -> tuple[tuple[int, int], ...]:
    """The families of some neurons' columns with their counts, in order of the first neuron."""
    counts: dict[int, int] = {}
    runs, lengths = units.family_of[units.unit_of[neurons]].unique_consecutive(return_counts=True)
    for family, length in zip(runs.tolist(), lengths.tolist(), strict=True):
        counts[family] = counts.get(family, 0) + length
    return tuple(counts.items())


def _groups(names: Sequence[str]) -> list[str]:
    """For each name its path up to the first numbered part, where a neighbour shares it."""
    groups = [_numbered_prefix(name) for name in names]
    alone = ["", *groups[:-1]], [*groups[1:], ""]
    return [
        group if group in (before, after) else ""
        for before, group, after in zip(alone[0], groups, alone[1], strict=True)
    ]


def _numbered_prefix(name: str) -> str:
    parts = name.split(".")
    for count, part in enumerate(parts[:-1], 1):
        if any(letter.isdigit() for letter in part):
            return ".".join(parts[:count])
    return ""


def _reads(rows: Sequence[Row]) -> dict[int, tuple[int, ...]]:
    readers: dict[int, set[int]] = {}
    for number, row in enumerate(rows):
        for reading in row.readings:
            for source in reading.sources:
                if source != number - 1:
                    readers.setdefault(source, set()).add(number)
    return {source: tuple(sorted(found)) for source, found in sorted(readers.items())}


def _couplings(rows: Sequence[Row]) -> dict[int, tuple[int, ...]]:
    members: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        for family in {family: None for family, _ in row.families} | dict.fromkeys(row.head_families):
            members.setdefault(family, []).append(number)
    return {family: tuple(found) for family, found in members.items() if len(found) > 1}
