"""What a model's neurons are and how they hang together: the neuron graph without its tensors, and immutable."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

IS_INPUT, IS_OUTPUT = "it is an input of the model", "it is an output of the model"
"""The reasons of the locks at a model's ends."""


@dataclass(frozen=True)
class Layer:
    """A contiguous run of neurons that came to be in one operation: ids ``start`` to ``start + size``."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class EdgeBlock:
    """A complete bipartite graph between two index lists: one region of one parameter that contracts activations.

    The region is the strided view ``(groups, out, in, taps)`` of the flat parameter, so a convolution, a transposed
    convolution, a linear layer, a slice of a packed projection and a flattened classifier are all the same thing.
    Within group ``g`` the element ``[g, o, i, t]`` is tap ``t`` of the edge ``sources[g, i] -> destinations[g, o]``.

    Attributes:
        param: name of the state-dict entry.
        size: (groups, out per group, in per group, taps).
        stride: the same four axes' strides in the flat parameter, in elements.
        offset: first element of the region in the flat parameter.
        destinations: int64, shape (groups, out), neuron ids.
        sources: int64, shape (groups, in), neuron ids.
        kernel: shape of the grid of taps, row-major along the tap axis; () for one tap.
        positions: output positions at which the block is applied; MACs = elements * positions.
    """

    param: str
    size: tuple[int, int, int, int]
    stride: tuple[int, int, int, int]
    offset: int
    destinations: Tensor
    sources: Tensor
    kernel: tuple[int, ...]
    positions: int

    @property
    def num_edges(self) -> int:
        """Edges between neurons; all taps of one pair are one edge."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole block for one sample."""
        return math.prod(self.size) * self.positions

    def weights(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The region as a view of shape (groups, out, in, taps); gradients flow through it.

        The parameter is made contiguous first where it is not (channels-last, say).
        """
        tensor = tensors[self.param].contiguous()
        return tensor.as_strided(self.size, self.stride, tensor.storage_offset() + self.offset)

    def scatter(self, flat: Tensor, values: Tensor) -> Tensor:
        """A new flat parameter of shape (numel,) in which the region holds ``values`` (groups, out, in, taps)."""
        return torch.as_strided_scatter(flat, values, self.size, self.stride, self.offset)


@dataclass(frozen=True, eq=False)
class Feature:
    """State-dict elements that belong to single neurons.

    Attributes:
        name: name of the state-dict entry (a parameter, or a buffer such as a running mean).
        kind: "bias", "scale", "shift", "mean", "variance", "position" or "constant".
        elements: int64, shape (n,), positions in the flat tensor.
        neurons: int64, shape (n,), the neuron each of them meets.
    """

    name: str
    kind: str
    elements: Tensor
    neurons: Tensor


@dataclass(frozen=True, eq=False)
class Product:
    """Activations contracted with activations (q·k, attention·v): ``macs_per_neuron`` for every neuron of the list."""

    neurons: Tensor
    macs_per_neuron: int


Plane = Literal["both", "column", "row"]
"""Which of a neuron's two units: its column (a channel, a per-head dimension), its row (a head)."""


@dataclass(frozen=True, eq=False)
class Lock:
    """Neurons of which the units in ``plane`` cannot be removed, and why. ``neurons`` is int64, shape (n,)."""

    neurons: Tensor
    reason: str
    plane: Plane = "both"


@dataclass(frozen=True, eq=False)
class Span:
    """Neurons that are mixed by an operator without parameters per pair (a LayerNorm, a mean over channels).

    Removing some of them changes what the others carry: zeros are not absence there.
    """

    neurons: Tensor
    operator: str


def owners_of(
    blocks: Iterable[EdgeBlock], features: Iterable[Feature]
) -> dict[str, tuple[list[EdgeBlock], list[Feature]]]:
    """The blocks and features of every entry that has any."""
    owners: dict[str, tuple[list[EdgeBlock], list[Feature]]] = {}
    for block in blocks:
        owners.setdefault(block.param, ([], []))[0].append(block)
    for feature in features:
        owners.setdefault(feature.name, ([], []))[1].append(feature)
    return owners


@dataclass(frozen=True, eq=False)
class Structure:
    """Where every state-dict element of a model is: an edge, a feature, or kept verbatim, once.

    Attributes:
        layers: the neurons, in contiguous runs, in order of execution.
        blocks: the edges, implicit.
        features: what single neurons own.
        identity: int64, shape (2, p): residual additions and gates, earlier neuron -> later neuron.
        ties: int64, shape (2, q): neurons that must go together for a reason other than an addition.
        columns: int64, shape (2, r): neurons of several heads that are the same per-head dimension.
        rows: int64, shape (2, s): neurons that are in the same head.
        heads: int64, shape (t,): neurons that stand for a whole head (an attention score's); their column is their row.
        products: activation-by-activation contractions, for MACs.
        locks: neurons that cannot be removed, with reasons.
        spans: neurons whose removal is not the same as masking.
        verbatim: state-dict entries (whole, or the elements left over) that are kept as they are, with the reason.
        aliases: second names of shared tensors, name -> first name.
        trainable: the floating-point parameters among the tensors (buffers are not).
    """

    layers: tuple[Layer, ...]
    blocks: tuple[EdgeBlock, ...]
    features: tuple[Feature, ...]
    identity: Tensor
    ties: Tensor
    columns: Tensor
    rows: Tensor
    heads: Tensor
    products: tuple[Product, ...]
    locks: tuple[Lock, ...]
    spans: tuple[Span, ...]
    verbatim: Mapping[str, str]
    aliases: Mapping[str, str]
    trainable: frozenset[str]
    _derived: dict[Any, Any] = field(init=False, repr=False, default_factory=dict)

    def derive(self, make: Callable[..., T], *args: Hashable) -> T:
        """``make(self, *args)``, made once and kept for as long as the structure is."""
        key = (make, *args)
        if key not in self._derived:
            self._derived[key] = make(self, *args)
        found: T = self._derived[key]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """A copy and a file are without what can be derived again."""
        return {**self.__dict__, "_derived": {}}

    @property
    def num_neurons(self) -> int:
        """How many neurons there are, inputs and the constant one included."""
        return self.layers[-1].start + self.layers[-1].size if self.layers else 0

    @property
    def num_edges(self) -> int:
        """How many edges there are, all blocks together."""
        return sum(block.num_edges for block in self.blocks)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample, attention products included."""
        return sum(block.macs for block in self.blocks) + sum(
            product.neurons.numel() * product.macs_per_neuron for product in self.products
        )
