"""Between a state dict and what a metanetwork reads and writes: per-block weights and per-neuron features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph

FRESH_SCALE = 1e-2
"""Scale of values that are all zero (a fresh bias, a zero-initialised norm): they have no RMS to be relative to."""


@dataclass(frozen=True, eq=False)
class Values:
    """One number for every element that is an edge or a feature, in the graph's own order.

    Attributes:
        weights: per block of the graph, shape (groups, out, in, taps).
        features: the values of all features one after the other, shape (f,).
    """

    weights: tuple[Tensor, ...]
    features: Float[Tensor, " f"]

    def __mul__(self, other: Values) -> Values:
        """Elementwise product; ``other`` may broadcast."""
        weights = tuple(mine * theirs for mine, theirs in zip(self.weights, other.weights, strict=True))
        return Values(weights, self.features * other.features)

    def __truediv__(self, other: Values) -> Values:
        """Elementwise quotient; ``other`` may broadcast."""
        weights = tuple(mine / theirs for mine, theirs in zip(self.weights, other.weights, strict=True))
        return Values(weights, self.features / other.features)

    def scaled(self, factor: float) -> Values:
        """All values times one number."""
        return Values(tuple(factor * weight for weight in self.weights), factor * self.features)


def read_values(graph: NeuronGraph, tensors: Mapping[str, Tensor], like: Tensor) -> Values:
    """All edge weights and features of ``tensors``, in the dtype and on the device of ``like``; differentiable."""
    weights = tuple(block.weights(tensors).to(like) for block in graph.blocks)
    features = [tensors[f.name].reshape(-1)[f.elements.to(tensors[f.name].device)].to(like) for f in graph.features]
    return Values(weights, torch.cat(features) if features else like.new_zeros(0))


def rms_scales(graph: NeuronGraph, values: Values) -> Values:
    """The root mean square of each block and of each feature entry, broadcastable against ``values``.

    Dividing by it makes every block look alike to the metanetwork; multiplying by it afterwards makes its ``ratio`` a
    relative change. Values that are all zero get :data:`FRESH_SCALE`.
    """
    weights = tuple(_root(weight.square().mean()) for weight in values.weights)
    sizes = torch.tensor([f.elements.numel() for f in graph.features], dtype=torch.int64, device=values.features.device)
    owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    squares = values.features.new_zeros(len(sizes)).index_add(0, owner, values.features.square())
    return Values(weights, _root(squares / sizes)[owner])


def keep_rms(values: Values, change: Values) -> Values:
    """The change after which every block of weights has the root mean square that it had before.

    Before a normalisation the scale of a block changes nothing but the size of its later updates in training. A
    metanetwork that could change it would learn to set a learning rate instead of learning what to keep.
    """
    weights = []
    for old, step in zip(values.weights, change.weights, strict=True):
        new = old + step
        before, after = old.square().mean(), new.square().mean()
        one = torch.ones_like(before)  # a block that was all zero has no scale to keep
        factor = (torch.where(before > 0, before, one) / torch.where(before > 0, after, one)).sqrt()
        weights.append(new * factor - old)
    return Values(tuple(weights), change.features)


def place_values(graph: NeuronGraph, values: Values) -> dict[str, Tensor]:
    """The values where they belong: every entry that has edges or features, in its own shape, zero elsewhere."""
    flat: dict[str, Tensor] = {}
    for block, weights in zip(graph.blocks, values.weights, strict=True):
        flat[block.param] = block.scatter(_base(graph, flat, block.param, weights), weights)
    sizes = [feature.elements.numel() for feature in graph.features]
    for feature, numbers in zip(graph.features, values.features.split_with_sizes(sizes), strict=True):
        base = _base(graph, flat, feature.name, numbers)
        flat[feature.name] = base.index_copy(0, feature.elements.to(base.device), numbers)
    return {name: numbers.view(graph.tensors[name].shape) for name, numbers in flat.items()}


def write_values(graph: NeuronGraph, tensors: Mapping[str, Tensor], change: Values) -> dict[str, Tensor]:
    """``tensors`` plus ``change`` on the trainable entries; every other entry is passed on as the same object."""
    placed = place_values(graph, change)
    written = {
        name: tensor + placed[name].to(tensor) if name in placed and name in graph.trainable else tensor
        for name, tensor in tensors.items()
    }
    return written | {alias: written[first] for alias, first in graph.aliases.items()}


def block_index(graph: NeuronGraph) -> dict[tuple[int, int, tuple[int, ...]], list[int]]:
    """Positions of the blocks that share (out, in, kernel) and can therefore be stacked along the group axis."""
    index: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
    for position, block in enumerate(graph.blocks):
        index.setdefault((block.size[1], block.size[2], block.kernel), []).append(position)
    return index


def feature_neurons(graph: NeuronGraph, device: torch.device) -> Int[Tensor, " f"]:
    """The neuron of every feature value, in the order of :attr:`Values.features`."""
    neurons = [feature.neurons for feature in graph.features]
    return (torch.cat(neurons) if neurons else torch.zeros(0, dtype=torch.int64)).to(device)


def _root(mean_square: Tensor) -> Tensor:
    # The zero branch is chosen before the root: the root's gradient at zero is infinite.
    fresh = torch.full_like(mean_square, FRESH_SCALE**2)
    return torch.where(mean_square > 0, mean_square, fresh).sqrt()


def _base(graph: NeuronGraph, flat: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    return flat[name] if name in flat else like.new_zeros(graph.tensors[name].numel())
