"""The second plane under construction: neurons that lie on a grid of heads and per-head dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Ids, squeeze_constant, varying
from metaprune_cli.graph.trace.neurons import CONSTANT, Neurons


class Heads:
    """Collects what a trace learns about heads.

    A neuron has a column and, where attention (or any other product or reduction within heads) met it, a row: removing
    a per-head dimension removes a column, removing a head removes a row. A *head neuron* stands for a whole row (an
    attention score belongs to a head, not to one of its dimensions); it has no column of its own.
    """

    def __init__(self, neurons: Neurons) -> None:
        self._neurons = neurons
        self._spreads: list[Tensor] = []
        self._shared: list[Tensor] = []
        self._head_of = torch.zeros(0, dtype=torch.int64)

    def spread(self, ids: Ids) -> None:
        """Remember that what survives of ``ids`` must be an outer product over their axes."""
        core = _core(ids, varying(ids))
        flat = core.reshape([size for size in core.shape if size > 1])
        if flat.dim() > 1:
            self._spreads.append(flat)

    def collapse(self, ids: Ids, dim: int) -> Ids:
        """What is left when the neurons along ``dim`` are contracted or reduced: the head neurons of their rows.

        Where the ids vary along no other axis there are no heads, and the constant neuron is left. The result has
        size 1 along ``dim``.
        """
        axes = varying(ids)
        shape = [1 if d == dim % ids.dim() else size for d, size in enumerate(ids.shape)]
        if dim % ids.dim() not in axes or len(axes) == 1:
            return torch.zeros((1,) * ids.dim(), dtype=torch.int64).expand(shape)
        core = _core(ids, axes)
        first = core.narrow(dim, 0, 1)
        known = self._heads_of(core)
        if not bool(((known == known.narrow(dim, 0, 1)) & (known > CONSTANT)).all()):
            self.spread(core)
            leaders, place = first.unique(return_inverse=True)
            heads = self._neurons.new(self._neurons.name_of(leaders), leaders.numel())
            heads = torch.where(leaders > CONSTANT, heads, CONSTANT)
            self.pivot(heads)
            self._neurons.tie_rows(heads[place].expand_as(core), core)
            self._remember(core, heads[place].expand_as(core))
        return self._heads_of(first).expand(shape)

    def broadcast(self, heads: Ids, rows: Ids) -> None:
        """``heads`` (one value for a row, of the same shape as ``rows`` after broadcasting) meet whole rows."""
        self.spread(rows)
        self.pivot(heads)
        self._neurons.tie_rows(heads.expand_as(rows), rows)

    def align(self, first: Ids, second: Ids) -> None:
        """Neurons of the two (equal shapes) that stand at the same place along an axis of heads."""
        if bool((self._heads_of(first) > CONSTANT).any() | (self._heads_of(second) > CONSTANT).any()):
            self.pivot(first)
            self.pivot(second)
        self._neurons.tie(first, second)

    def cross(self, heads: Ids, columns: Ids) -> Ids:
        """New neurons for every meeting of a head and a dimension that all heads share (multi-query attention)."""
        first, second = torch.broadcast_tensors(heads, columns)
        width = int(second.max()) + 1
        keys, place = (first * width + second).unique(return_inverse=True)
        neurons = self._neurons.new(self._neurons.name_of(keys % width), keys.numel())
        self._neurons.tie_rows(neurons, keys // width)
        self._neurons.tie_columns(neurons, keys % width)
        self.share(columns)
        crossed = neurons[place]
        self.spread(crossed)
        return crossed

    def pivot(self, ids: Ids) -> None:
        """Neurons that stand for a whole row: their column is their row."""
        neurons = squeeze_constant(ids).unique()
        neurons = neurons[neurons > CONSTANT]
        if neurons.numel():
            self._neurons.whole.append(neurons)
            self._remember(neurons, neurons)

    def share(self, ids: Ids) -> None:
        """Remember that all heads share these neurons, so that they must not have rows of their own."""
        self._shared.append(squeeze_constant(ids).unique())

    def resolve(self) -> None:
        """Turn what must be an outer product into couplings, now that it is known which neurons have rows.

        Of the axes that are not coupled anyway, the last keeps its freedom; so does, in the plane of rows, one axis of
        heads (the first along which the rows differ, each row holding all of the last axis). The others are tied.
        """
        column, row = self._neurons.planes()
        for ids in self._spreads:
            ids = _core(ids, sorted({*_differs(column[ids]), *_differs(row[ids])}))
            ids = ids.reshape([size for size in ids.shape if size > 1])
            if ids.dim() < 2:
                continue
            across, last = _differs(row[ids]), ids.dim() - 1
            heads = [] if last in across else across[:1]
            self._neurons.tie_along(ids, [d for d in range(last) if d not in heads])
            for d in heads:
                self._neurons.tie_columns(ids.narrow(d, 0, 1).expand_as(ids), ids)
        for ids in self._shared:
            owned = ids[row[ids] >= 0]
            if owned.numel():
                self._neurons.lock(owned, "all heads of another product share these neurons, which are heads too")

    def _heads_of(self, ids: Ids) -> Ids:
        self._grow()
        return self._head_of[ids]

    def _remember(self, ids: Ids, heads: Ids) -> None:
        self._grow()
        self._head_of[ids.reshape(-1)] = heads.reshape(-1)
        self._head_of[CONSTANT] = CONSTANT

    def _grow(self) -> None:
        missing = self._neurons.count - self._head_of.numel()
        if missing:
            self._head_of = torch.cat([self._head_of, torch.zeros(missing, dtype=torch.int64)])


def _core(ids: Ids, axes: list[int]) -> Ids:
    """``ids`` with every axis but ``axes`` narrowed to its first index."""
    for d in range(ids.dim()):
        if d not in axes and ids.size(d) > 1:
            ids = ids.narrow(d, 0, 1)
    return ids


def _differs(labels: Tensor) -> list[int]:
    return [d for d in range(labels.dim()) if bool((labels != labels.narrow(d, 0, 1)).any())]
