"""Which weights can be zeroed: those that contract activations, read off the graph's edge blocks.

Norms, biases, position tables and embeddings are no edges, so they are never among them. A weight is seen as the matrix
that a kernel multiplies with, one row for each output and its inputs along it:

- a matrix (linear layers, packed projections, flattened classifiers): as it lies in memory, along its inputs;
- a convolution: tap by tap, the input channels innermost (kh, kw, C_in). That is the order of the implicit matrix
  product on channels-last images, and of NVIDIA's ASP; a group of N:M never spans two taps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from metaprune_cli.graph.axes import place_of
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import IS_INPUT, IS_OUTPUT, EdgeBlock, owners_of

OUT, IN, TAP = 1, 2, 3
"""Axes of a block's (groups, out, in, taps)."""


@dataclass(frozen=True, eq=False)
class WeightLayer:
    """One state-dict entry of two dimensions or more.

    Attributes:
        name: the entry.
        shape: its shape.
        blocks: the regions of it that contract activations.
        classifier: whether its outputs are the model's; ``first``: whether its inputs are.
        untouched: why none of its elements may be zeroed; None where they may.
    """

    name: str
    shape: tuple[int, ...]
    blocks: tuple[EdgeBlock, ...]
    classifier: bool = False
    first: bool = False
    untouched: str | None = None

    @property
    def weights(self) -> int:
        """How many of its elements contract activations."""
        return sum(math.prod(block.size) for block in self.blocks)

    @property
    def is_matrix(self) -> bool:
        """Whether it is no convolution."""
        return len(self.shape) == 2

    def run(self, block: EdgeBlock) -> int:
        """How many inputs lie side by side along a row: all of a matrix, one tap's of a convolution."""
        return block.size[IN] * block.size[TAP] if self.is_matrix else block.size[IN]

    def start(self, block: EdgeBlock, axis: int) -> int:
        """Where a block begins along its outputs or its inputs."""
        axes = (IN, TAP) if axis == IN and self.is_matrix else (axis,)
        steps = [block.stride[n] for n in axes if block.size[n] > 1]
        if not steps:
            return 0
        along = place_of(min(steps), self.shape)
        return place_of(block.offset, self.shape)[max(range(len(along)), key=along.__getitem__)]

    def rows(self, block: EdgeBlock, values: Shaped[Tensor, "g o i t"]) -> Shaped[Tensor, "rows columns"]:
        """A block's values as the matrix that is multiplied with."""
        return (values if self._taps_innermost(block) else values.transpose(2, 3)).flatten(2).flatten(0, 1)

    def from_rows(self, block: EdgeBlock, rows: Shaped[Tensor, "rows columns"]) -> Shaped[Tensor, "g o i t"]:
        """The inverse of :meth:`rows`."""
        groups, out, into, taps = block.size
        if self._taps_innermost(block):
            return rows.view(groups, out, into, taps)
        return rows.view(groups, out, taps, into).transpose(2, 3)

    def _taps_innermost(self, block: EdgeBlock) -> bool:
        return self.is_matrix and block.stride[TAP] < block.stride[IN]


def find_layers(graph: NeuronGraph) -> tuple[WeightLayer, ...]:
    """Every trainable entry of two dimensions or more, in the order of the state dict."""
    return tuple(_layers(graph))


def _layers(graph: NeuronGraph) -> Iterator[WeightLayer]:
    ends = {reason: torch.zeros(graph.num_neurons, dtype=torch.bool) for reason in (IS_INPUT, IS_OUTPUT)}
    for lock in graph.locks:
        if lock.reason in ends:
            ends[lock.reason][lock.neurons] = True
    owners = owners_of(graph.blocks, graph.features)
    for name, tensor in graph.tensors.items():
        if name not in graph.trainable or tensor.dim() < 2:
            continue
        blocks, features = owners.get(name, ([], []))
        reason = graph.verbatim.get(name)
        if features:
            reason = f"its elements act one by one ({features[0].kind})"
        yield WeightLayer(
            name,
            tuple(tensor.shape),
            tuple(blocks),
            classifier=any(bool(ends[IS_OUTPUT][block.destinations].any()) for block in blocks),
            first=any(bool(ends[IS_INPUT][block.sources].any()) for block in blocks),
            untouched=reason or (None if blocks else "it meets no activation"),
        )
