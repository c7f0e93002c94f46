"""A graph's edges as one flat array of weights and one list of neurons: what both engines walk over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import Structure
from metaprune_cli.methods.metanet.codec import Kernel
from metaprune_cli.methods.metanet.values import block_index

CARRIED = 2**30
"""Bytes of gradients of edges' states that a backward pass carries from layer to layer."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """Blocks of one shape, stacked along their groups: complete bipartite graphs from sources to destinations.

    Attributes:
        members: positions of the blocks in the graph; none: the identity edges.
        taps: how many weights an edge has.
        destinations: neuron ids, shape (groups, out).
        sources: neuron ids, shape (groups, in).
        offset: first element in the flat weights.
        table: first of its taps in the tables.
    """

    members: tuple[int, ...]
    taps: int
    destinations: Int[Tensor, "g o"]
    sources: Int[Tensor, "g i"]
    offset: int
    table: int

    @property
    def size(self) -> int:
        """Elements in the flat weights."""
        return self.destinations.numel() * self.sources.shape[1] * self.taps

    def view(self, flat: Tensor) -> Float[Tensor, "g o i t"]:
        """Its part of the flat weights."""
        part = flat[self.offset : self.offset + self.size]
        return part.view(*self.destinations.shape, self.sources.shape[1], self.taps)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything is; the identity edges are the last bundle, of weight one.

    Attributes:
        bundles: all edges.
        kernels: the kernel of each part of the tables, in order; after them comes the row of the identity edges.
        num_neurons: how many neurons there are.
        groups: per block of the graph, its number of groups.
        device: of the neuron ids.
        precision: of the edges' states while they are computed; None: that of the weights.
    """

    bundles: tuple[Bundle, ...]
    kernels: tuple[Kernel, ...]
    num_neurons: int
    groups: tuple[int, ...]
    device: torch.device
    precision: torch.dtype | None = None

    @classmethod
    def of(cls, graph: NeuronGraph, device: torch.device, precision: torch.dtype | None = None) -> Layout:
        """The layout of a graph; made once for each structure, device and precision."""
        return graph.structure.derive(_made, device, precision)

    @property
    def size(self) -> int:
        """Elements of the flat weights, identity edges included."""
        return self.bundles[-1].offset + self.bundles[-1].size

    @property
    def blocks(self) -> tuple[Bundle, ...]:
        """The bundles whose weights are a model's: all but the identity edges."""
        return self.bundles[:-1]

    @cached_property
    def heard(self) -> Float[Tensor, "2 n"]:
        """How many messages each neuron gets along the edges, and along the reversed edges; at least 1."""
        counts = torch.zeros(2, self.num_neurons, device=self.device)
        for bundle in self.bundles:
            for direction, sets, other in (
                (0, bundle.destinations, bundle.sources),
                (1, bundle.sources, bundle.destinations),
            ):
                messages = torch.full((sets.numel(),), float(other.shape[1]), device=self.device)
                counts[direction].index_add_(0, sets.flatten(), messages)
        return counts.clamp(min=1)

    def carried(self, size: int) -> tuple[tuple[int, ...], int]:
        """The bundles whose edges' gradients are carried from layer to layer: as many as there is room for.

        Args:
            size: bytes of an edge's state.

        Returns:
            Per bundle, where its edges begin among all that are carried; -1 where they are not. How many are.
        """
        starts, total = [], 0
        for bundle in self.bundles:
            edges = bundle.size // bundle.taps
            fits = (total + edges) * size <= CARRIED
            starts.append(total if fits else -1)
            total += edges * fits
        return tuple(starts), total

    def flatten(self, weights: Sequence[Tensor], like: Tensor) -> Float[Tensor, " size"]:
        """All blocks' weights, each of shape (groups, out, in, taps), in one array like ``like``; differentiable."""
        flat: Tensor = Flatten.apply(self, like, *weights)
        return flat

    def unflatten(self, flat: Float[Tensor, " size"]) -> tuple[Tensor, ...]:
        """The inverse of :meth:`flatten`, as views; differentiable."""
        weights: tuple[Tensor, ...] = Unflatten.apply(self, flat)
        return weights

    def parts(self, flat: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Every block's position in the graph and its part of a flat array, shape (groups, out, in, taps)."""
        for bundle in self.blocks:
            groups = [self.groups[member] for member in bundle.members]
            yield from zip(bundle.members, bundle.view(flat).split(groups), strict=True)

    def filled(self, weights: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """A flat array of these weights, where there are any, and of ones on the identity edges."""
        flat = like.new_empty(self.size)
        for position, part in self.parts(flat):
            weight = weights[position]
            if weight is None:
                part.zero_()
            else:
                part.copy_(weight)
        self.bundles[-1].view(flat).fill_(1)
        return flat


class Flatten(torch.autograd.Function):
    """Many arrays into one; PyTorch's own derivative of a write into a view copies the whole array for each."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, like: Tensor, *weights: Tensor) -> Tensor:
        """The flat array."""
        ctx.layout = layout
        return layout.filled(weights, like)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Its parts."""
        return (None, None, *(part for _, part in sorted(ctx.layout.parts(gradient), key=lambda item: item[0])))


class Unflatten(torch.autograd.Function):
    """One array into many."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, flat: Tensor) -> tuple[Tensor, ...]:
        """The parts, in the order of the graph's blocks."""
        ctx.layout, ctx.like = layout, flat.new_empty(0)
        ctx.set_materialize_grads(False)
        return tuple(part for _, part in sorted(layout.parts(flat), key=lambda item: item[0]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, Tensor]:
        """The flat array of the gradients."""
        return None, ctx.layout.filled(gradients, ctx.like)


def _made(structure: Structure, device: torch.device, precision: torch.dtype | None) -> Layout:
    index = block_index(structure)
    kernels = tuple(dict.fromkeys(kernel for _, _, kernel in index))
    starts = dict(zip(kernels, _starts([math.prod(kernel) for kernel in kernels]), strict=False))
    bundles: list[Bundle] = []
    for (_, _, kernel), members in index.items():
        destinations = torch.cat([structure.blocks[m].destinations for m in members]).to(device)
        sources = torch.cat([structure.blocks[m].sources for m in members]).to(device)
        bundles.append(Bundle(tuple(members), math.prod(kernel), destinations, sources, 0, starts[kernel]))
    start, end = structure.identity.to(device)[:, :, None]
    bundles.append(Bundle((), 1, end, start, offset=0, table=sum(math.prod(kernel) for kernel in kernels)))
    offsets = _starts([bundle.size for bundle in bundles])
    placed = [dataclasses.replace(b, offset=offset) for b, offset in zip(bundles, offsets, strict=False)]
    groups = tuple(block.size[0] for block in structure.blocks)
    return Layout(tuple(placed), kernels, structure.num_neurons, groups, device, precision)


def _starts(sizes: Sequence[int]) -> list[int]:
    """Where each piece begins, and where the last one ends."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts
