"""The neurons of a trace: what they came from, which of them go together, and which cannot go at all."""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import Tensor

from metaprune_cli.graph.components import components, planes, unique_pairs
from metaprune_cli.graph.structure import Layer, Lock, Plane, Span
from metaprune_cli.graph.trace.labels import Ids, squeeze_constant

CONSTANT = 0
"""The one neuron that stands for everything without a neuron of its own; it is locked."""

INPUT = "input"
"""The name of the layers of the model's inputs."""


class Neurons:
    """Collects neurons, what couples them, locks and spans while a model is traced.

    Attributes:
        layers: the neurons so far.
        identity: pairs whose activations are added or multiplied, each of shape (2, p).
        ties: pairs that must go together for another reason, each of shape (2, p).
        columns: pairs coupled in the plane of columns only, each of shape (2, p).
        rows: pairs coupled in the plane of rows only, each of shape (2, p).
        whole: neurons that stand for a whole row.
        locks: what cannot go, and why.
        spans: what is mixed.
    """

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.identity: list[Tensor] = []
        self.ties: list[Tensor] = []
        self.columns: list[Tensor] = []
        self.rows: list[Tensor] = []
        self.whole: list[Tensor] = []
        self.locks: list[Lock] = []
        self.spans: list[Span] = []
        self._together = (torch.empty(0, dtype=torch.int64), 0, 0)
        self.lock(self.new("constant", 1), "no neuron: a constant")

    def new(self, name: str, size: int) -> Tensor:
        """Ids of ``size`` new neurons, in a layer of their own."""
        start = self.count
        self.layers.append(Layer(name, start, size))
        return torch.arange(start, start + size)

    @property
    def count(self) -> int:
        """How many neurons there are so far."""
        return self.layers[-1].start + self.layers[-1].size if self.layers else 0

    def lock(self, ids: Ids, reason: str, plane: Plane = "both") -> None:
        """Lock every neuron that appears in ``ids``."""
        neurons = squeeze_constant(ids).unique()
        self.locks.append(Lock(neurons, reason, plane))

    def span(self, ids: Ids, operator: str) -> None:
        """Remember that ``operator`` mixes these neurons."""
        self.spans.append(Span(squeeze_constant(ids).unique(), operator))

    def are_inputs(self, ids: Ids) -> bool:
        """Whether every one of these neurons is one of the model's inputs."""
        found = squeeze_constant(ids).unique().tolist()
        return all(self._layer_of(neuron).name == INPUT for neuron in found)

    def name_of(self, ids: Ids) -> str:
        """The layer of the last of these neurons."""
        return self._layer_of(int(ids.max())).name

    def _layer_of(self, neuron: int) -> Layer:
        return self.layers[bisect_right(self.layers, neuron, key=lambda layer: layer.start) - 1]

    def tie(self, first: Ids, second: Ids) -> None:
        """Neurons of the two (equal shapes) that must go together."""
        couple(self.ties, first, second)

    def join(self, first: Ids, second: Ids) -> None:
        """Neurons of the two (equal shapes) whose activations are added or multiplied: identity edges."""
        couple(self.identity, torch.minimum(first, second), torch.maximum(first, second))

    def tie_columns(self, first: Ids, second: Ids) -> None:
        """Neurons of the two (equal shapes) that are the same per-head dimension."""
        couple(self.columns, first, second)

    def tie_rows(self, first: Ids, second: Ids) -> None:
        """Neurons of the two (equal shapes) that are in the same head."""
        couple(self.rows, first, second)

    def tie_along(self, ids: Ids, dims: list[int]) -> Ids:
        """Tie the ids along ``dims`` to the first of them and return these, ``dims`` kept with size 1."""
        small = squeeze_constant(ids)
        if small.numel() == 0:  # nothing was detected, say: no neuron is seen here
            return torch.zeros([1 if d in dims else size for d, size in enumerate(small.shape)], dtype=torch.int64)
        head = _first_along(small, dims)
        if head.numel() != small.numel():
            self.tie(head.expand_as(small), small)
        return head

    def same(self, ids: Ids, dim: int) -> bool:
        """Whether the ids along ``dim`` belong together already, by what is coupled so far; constants to anybody."""
        small = squeeze_constant(ids)
        if small.size(dim) == 1:
            return True
        head, nobody = _first_along(small, [dim]), small == CONSTANT
        if bool(((small == head) | nobody).all()):
            return True
        label = self.together()
        return bool(((label[small] == label[head]) | nobody).all())

    def together(self) -> Tensor:
        """The component of every neuron by what is coupled so far; goes on from what it was the last time."""
        known, identity, ties = self._together
        label = torch.cat([known, torch.arange(known.numel(), self.count)])
        new = joined(*self.identity[identity:], *self.ties[ties:])
        if new.numel():
            label = components(label.numel(), label[new])[label]
        self._together = label, len(self.identity), len(self.ties)
        return label

    def planes(self) -> tuple[Tensor, Tensor]:
        """Column and row of every neuron by what is coupled so far (see :func:`components.planes`)."""
        both, columns, rows = (joined(*pairs) for pairs in (self.identity + self.ties, self.columns, self.rows))
        return planes(self.count, both, columns, rows, distinct(self.whole))


def couple(pairs: list[Tensor], first: Ids, second: Ids) -> None:
    """Append the distinct pairs of two different neurons, the constant one left out."""
    pair = torch.stack([first.reshape(-1), second.reshape(-1)])
    pair = pair[:, (pair[0] != pair[1]) & (pair > CONSTANT).all(0)]
    if pair.numel():
        pairs.append(unique_pairs(pair))


def _first_along(ids: Ids, dims: list[int]) -> Ids:
    """The ids at index 0 of ``dims``, kept with size 1; where that is padding, another along them that is none."""
    head = ids
    for d in dims:
        head = head.narrow(d, 0, 1)
    if dims and bool((head == CONSTANT).any()):
        return torch.where(head == CONSTANT, ids.amax(dims, keepdim=True), head)
    return head


def joined(*pairs: Tensor) -> Tensor:
    """All pairs in one tensor of shape (2, p)."""
    return torch.cat([torch.empty(2, 0, dtype=torch.int64), *pairs], dim=1)


def distinct(neurons: list[Tensor]) -> Tensor:
    """All neurons of the lists, each once."""
    found: Tensor = torch.cat([torch.empty(0, dtype=torch.int64), *neurons]).unique()
    return found
