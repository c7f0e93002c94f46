"""Between a state dict and what a metanetwork reads and writes: per-block weights and per-neuron features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import Feature, Structure

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
    features = [_elements(tensors[f.name], f).to(like) for f in graph.features]
    return Values(weights, torch.cat(features) if features else like.new_zeros(0))


def rms_scales(graph: NeuronGraph, values: Values) -> Values:
    """The root mean square of each block and of each feature entry, broadcastable against ``values``.

    Dividing by it makes every block look alike to the metanetwork; multiplying by it afterwards makes its ``ratio`` a
    relative change. Values that are all zero get :data:`FRESH_SCALE`.
    """
    means = [weight.square().mean() for weight in values.weights]
    weights = _root(torch.stack(means)).unbind() if means else ()
    sizes = torch.tensor([f.elements.numel() for f in graph.features], dtype=torch.int64, device=values.features.device)
    owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    squares = values.features.new_zeros(len(sizes)).index_add(0, owner, values.features.square())
    return Values(weights, _root(squares / sizes)[owner])


def unit_scales(values: Values) -> Values:
    """Ones, broadcastable against ``values``."""
    one = values.features.new_ones(())
    return Values((one,) * len(values.weights), one)


def keep_rms(values: Values, change: Values) -> Values:
    """The change after which every block of weights has the root mean square that it had before.

    Before a normalisation the scale of a block changes nothing but the size of its later updates in training. A
    metanetwork that could change it would learn to set a learning rate instead of learning what to keep.
    """
    news = [old + step for old, step in zip(values.weights, change.weights, strict=True)]
    kept = [new * _rms_ratio(old, new) - old for old, new in zip(values.weights, news, strict=True)]
    return Values(tuple(kept), change.features)


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


class Rewrite(torch.autograd.Function):
    """The same as scaling a change, :func:`keep_rms` and :func:`write_values`, where the values are constants.

    PyTorch's own derivative of that takes twenty small steps for each block of the model, and a copy of it for most.
    """

    @staticmethod
    def forward(ctx: Any, rewriting: Rewriting, features: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """The rewritten entries, in the order of ``rewriting.names``."""
        written, factors = rewriting.apply(Values(weights, features))
        ctx.rewriting, ctx.factors, ctx.like = rewriting, factors, features.new_empty(0)
        ctx.save_for_backward(*written)
        return tuple(written)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the change."""
        back = ctx.rewriting.pull_back(ctx.saved_tensors, ctx.factors, gradients, ctx.like)
        return None, back.features, *back.weights


@dataclass(frozen=True, eq=False)
class Rewriting:
    """A state dict that is about to be rewritten.

    Attributes:
        graph: the structure.
        tensors: the state dict.
        values: what :func:`read_values` read of it.
        step: what the metanetwork's change is multiplied with, broadcastable against ``values``.
        keep: whether blocks keep their root mean square.
    """

    graph: NeuronGraph
    tensors: Mapping[str, Tensor]
    values: Values
    step: Values
    keep: bool

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The trainable entries that have edges or features."""
        read = {block.param for block in self.graph.blocks} | {feature.name for feature in self.graph.features}
        return tuple(name for name in self.tensors if name in read & self.graph.trainable)

    def apply(self, change: Values) -> tuple[list[Tensor], list[Tensor]]:
        """The rewritten entries, and by what each block was multiplied to keep its scale."""
        written = {name: self.tensors[name].clone(memory_format=torch.contiguous_format) for name in self.names}
        factors = []
        for block, old, step, own in zip(
            self.graph.blocks, self.values.weights, self.step.weights, change.weights, strict=True
        ):
            new = torch.addcmul(old, own, step)
            factors.append(_rms_ratio(old, new) if self.keep else torch.ones_like(step))
            if block.param in written:
                block.weights(written).copy_(new.mul_(factors[-1]))
        new_features = torch.addcmul(self.values.features, change.features, self.step.features)
        for feature, numbers in self._split(new_features):
            if feature.name in written:
                flat = written[feature.name].view(-1)
                flat.index_copy_(0, feature.elements.to(flat.device), numbers.to(flat))
        return list(written.values()), factors

    def pull_back(
        self, written: Sequence[Tensor], factors: Sequence[Tensor], gradients: Sequence[Tensor], like: Tensor
    ) -> Values:
        """The gradient of the change, from that of the rewritten entries."""
        of, new = dict(zip(self.names, gradients, strict=True)), dict(zip(self.names, written, strict=True))
        weights = []
        for block, step, factor, old in zip(
            self.graph.blocks, self.step.weights, factors, self.values.weights, strict=True
        ):
            if block.param not in of:
                weights.append(torch.zeros_like(old))
                continue
            gradient, result = block.weights(of).to(like), block.weights(new).to(like)
            if self.keep:  # a change of scale alone is undone
                square = result.square().sum()
                along = (gradient * result).sum() / torch.where(square > 0, square, 1)
                gradient = torch.addcmul(gradient, result, along, value=-1)
            weights.append(gradient * (factor * step))
        features = torch.zeros_like(self.values.features)
        for (feature, step), target in zip(
            self._split(self.step.features.expand_as(features)),
            (part for _, part in self._split(features)),
            strict=True,
        ):
            if feature.name in of:
                torch.mul(_elements(of[feature.name], feature).to(like), step, out=target)
        return Values(tuple(weights), features)

    def _split(self, features: Tensor) -> Iterator[tuple[Feature, Tensor]]:
        sizes = [feature.elements.numel() for feature in self.graph.features]
        return zip(self.graph.features, features.split_with_sizes(sizes), strict=True)


def block_index(structure: Structure) -> dict[tuple[int, int, tuple[int, ...]], list[int]]:
    """Positions of the blocks that share (out, in, kernel) and can therefore be stacked along the group axis."""
    index: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
    for position, block in enumerate(structure.blocks):
        index.setdefault((block.size[1], block.size[2], block.kernel), []).append(position)
    return index


def feature_neurons(graph: NeuronGraph, device: torch.device) -> Int[Tensor, " f"]:
    """The neuron of every feature value, in the order of :attr:`Values.features`."""
    neurons = [feature.neurons for feature in graph.features]
    return (torch.cat(neurons) if neurons else torch.zeros(0, dtype=torch.int64)).to(device)


def _rms_ratio(old: Tensor, new: Tensor) -> Tensor:
    """Of the old root mean square to the new; 1 where all was zero and there is no scale to keep."""
    before, after = old.square().mean(), new.square().mean()
    one = torch.ones_like(before)
    return (torch.where(before > 0, before, one) / torch.where(before > 0, after, one)).sqrt()


def _root(mean_square: Tensor) -> Tensor:
    # The zero branch is chosen before the root: the root's gradient at zero is infinite.
    fresh = torch.full_like(mean_square, FRESH_SCALE**2)
    return torch.where(mean_square > 0, mean_square, fresh).sqrt()


def _elements(tensor: Tensor, feature: Feature) -> Tensor:
    return tensor.reshape(-1).index_select(0, feature.elements.to(tensor.device))


def _base(graph: NeuronGraph, flat: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    return flat[name] if name in flat else like.new_zeros(graph.tensors[name].numel())
