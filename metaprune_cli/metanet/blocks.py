"""The default backend: dense arithmetic on whole blocks, in which no edge list is ever written out.

Blocks of the same shape are stacked along their group axis, so the number of operations grows with the number of
different shapes in a model, not with its depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.metanet.codec import KINDS, Codec, Kernel
from metaprune_cli.metanet.layers import MessageLayer, deviation, normalise
from metaprune_cli.metanet.values import Values, block_index, feature_neurons


@dataclass(frozen=True, eq=False)
class Bundle:
    """Blocks of one shape, stacked: edge states have shape (groups, out, in, h).

    Attributes:
        members: positions of the blocks in the graph.
        kernel: their common kernel.
        destinations: neuron ids, shape (groups, out).
        sources: neuron ids, shape (groups, in).
    """

    members: tuple[int, ...]
    kernel: Kernel
    destinations: Int[Tensor, "g o"]
    sources: Int[Tensor, "g i"]


@dataclass(frozen=True, eq=False)
class Summary:
    """Mean, variance, maximum and minimum of some sets of messages, each of shape (sets, h)."""

    mean: Tensor
    variance: Tensor
    high: Tensor
    low: Tensor


@dataclass(frozen=True, eq=False)
class Inbox:
    """Which neuron each partial summary belongs to, in one direction of travel.

    Attributes:
        neuron: int64, shape (sets,).
        count: messages in each set, shape (sets, 1).
        total: messages each neuron gets altogether, at least 1, shape (n, 1).
    """

    neuron: Int[Tensor, " sets"]
    count: Float[Tensor, "sets 1"]
    total: Float[Tensor, "n 1"]


def run_blocks(codec: Codec, layers: Iterable[MessageLayer], graph: NeuronGraph, values: Values) -> Values:
    """The decoded change of every weight and feature of a graph.

    Args:
        codec: encoders and decoders.
        layers: the message-passing layers, in order.
        graph: the structure.
        values: its (scaled) weights and features.
    """
    device = values.features.device
    bundles = _bundles(graph, device)
    start, end = graph.identity.to(device)
    ahead = _inbox([(b.destinations, b.sources.shape[1]) for b in bundles], end, graph.num_neurons, values.features)
    back = _inbox([(b.sources, b.destinations.shape[1]) for b in bundles], start, graph.num_neurons, values.features)

    slots, h = _encode_features(codec, graph, values.features)
    edges = [codec.encode_edges(torch.cat([values.weights[m] for m in b.members]), b.kernel) for b in bundles]
    loose = codec.identity.expand(start.numel(), -1)
    for layer in layers:
        g = layer.gates(h)
        signed = g.send * layer.sigma
        parts_ahead = [summarise_ahead(b, e, g.send) for b, e in zip(bundles, edges, strict=True)]
        parts_back = [summarise_back(b, e, signed) for b, e in zip(bundles, edges, strict=True)]
        got_ahead = _merge([*parts_ahead, _single(g.send[start] * loose)], ahead)
        got_back = _merge([*parts_back, _single(signed[end] * loose)], back)
        h = layer.update(h, receive(g.receive, got_ahead), receive(g.receive, got_back))
        edges = [update_edges(b, e, g.source, g.destination) for b, e in zip(bundles, edges, strict=True)]
        gate = g.source[start] * g.destination[end] + g.source[end] * g.destination[start]
        loose = loose + loose * gate
    return Values(_decode_edges(codec, graph, bundles, edges), codec.decode_nodes(normalise(h)).flatten()[slots])


def summarise_ahead(bundle: Bundle, edges: Float[Tensor, "g o i h"], send: Float[Tensor, "n h"]) -> Summary:
    """What each destination hears from this bundle, before its own receiving gate."""
    return _summarise(edges * send[bundle.sources][:, None], dim=2)


def summarise_back(bundle: Bundle, edges: Float[Tensor, "g o i h"], send: Float[Tensor, "n h"]) -> Summary:
    """What each source hears along the reversed edges, before its own receiving gate."""
    return _summarise(edges * send[bundle.destinations][:, :, None], dim=1)


def update_edges(
    bundle: Bundle, edges: Float[Tensor, "g o i h"], a: Float[Tensor, "n h"], b: Float[Tensor, "n h"]
) -> Float[Tensor, "g o i h"]:
    """e ⊙ (1 + a[src] ⊙ b[dst] + a[dst] ⊙ b[src]): both directions' updates at once, as σ ⊙ σ = 1."""
    gate = b[bundle.destinations][:, :, None] * a[bundle.sources][:, None]
    gate = torch.addcmul(gate, a[bundle.destinations][:, :, None], b[bundle.sources][:, None])
    return torch.addcmul(edges, edges, gate)


def receive(gate: Float[Tensor, "n h"], heard: Summary) -> Float[Tensor, "n h4"]:
    """Mean, deviation, maximum and minimum of the messages: the receiving gate is common to a neuron's messages, so it
    is applied to their summary instead of to each of them (a negative gate swaps the extremes).
    """
    high, low = gate * heard.high, gate * heard.low
    spread = deviation(gate.square() * heard.variance)
    return torch.cat([gate * heard.mean, spread, torch.maximum(high, low), torch.minimum(high, low)], dim=1)


class Summarise(torch.autograd.Function):
    """Mean, variance, maximum and minimum along one dimension, in a handful of passes over the messages.

    Autograd's own derivatives of amax and var take three times as long, and ties are common here (pruned weights are
    all zero); as in autograd, tied extremes share the gradient equally.
    """

    @staticmethod
    def forward(ctx: Any, messages: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four summaries, without ``dim``."""
        mean = messages.mean(dim, keepdim=True)
        variance = (messages - mean).square_().mean(dim)
        high, low = messages.amax(dim, keepdim=True), messages.amin(dim, keepdim=True)
        ctx.save_for_backward(messages, mean, high, low)
        ctx.dim = dim
        return mean.squeeze(dim), variance, high.squeeze(dim), low.squeeze(dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean: Tensor, variance: Tensor, high: Tensor, low: Tensor) -> tuple[Tensor, None]:
        """The messages' gradient from the summaries' gradients."""
        messages, center, top, bottom = ctx.saved_tensors
        dim, size = ctx.dim, messages.shape[ctx.dim]
        slope = variance.unsqueeze(dim) * (2 / size)
        gradient = torch.addcmul(mean.unsqueeze(dim) / size - slope * center, slope, messages)
        for extreme, incoming in ((top, high), (bottom, low)):
            reached = (messages == extreme).to(messages)
            gradient.addcmul_(reached, incoming.unsqueeze(dim) / reached.sum(dim, keepdim=True))
        return gradient, None


def _summarise(messages: Tensor, dim: int) -> Summary:
    parts: tuple[Tensor, ...] = Summarise.apply(messages, dim)
    return Summary(*(part.flatten(0, 1) for part in parts))


def _single(messages: Tensor) -> Summary:
    """One message a set."""
    return Summary(messages, torch.zeros_like(messages), messages, messages)


def _merge(parts: Sequence[Summary], inbox: Inbox) -> Summary:
    """One summary per neuron; neurons that get no message have zeros.

    Variances are merged by the parallel formula (Chan et al., 1979): no difference of large squares.
    """
    mean, variance, high, low = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "variance", "high", "low")
    )
    zeros = mean.new_zeros(len(inbox.total), mean.shape[1])
    common = zeros.index_add(0, inbox.neuron, mean * inbox.count) / inbox.total
    squares = (variance + (mean - common[inbox.neuron]).square()) * inbox.count
    index = inbox.neuron[:, None].expand_as(mean)
    return Summary(
        mean=common,
        variance=zeros.index_add(0, inbox.neuron, squares) / inbox.total,
        high=zeros.scatter_reduce(0, index, high, "amax", include_self=False),
        low=zeros.scatter_reduce(0, index, low, "amin", include_self=False),
    )


def _bundles(graph: NeuronGraph, device: torch.device) -> list[Bundle]:
    return [
        Bundle(
            members=tuple(members),
            kernel=kernel,
            destinations=torch.cat([graph.blocks[m].destinations for m in members]).to(device),
            sources=torch.cat([graph.blocks[m].sources for m in members]).to(device),
        )
        for (_, _, kernel), members in block_index(graph).items()
    ]


def _inbox(sets: Sequence[tuple[Tensor, int]], loose: Tensor, num_neurons: int, like: Tensor) -> Inbox:
    neuron = torch.cat([*(neurons.flatten() for neurons, _ in sets), loose])
    sizes = [(neurons.numel(), messages) for neurons, messages in sets] + [(loose.numel(), 1)]
    count = torch.cat([like.new_full((n, 1), messages) for n, messages in sizes])
    total = like.new_zeros(num_neurons, 1).index_add(0, neuron, count).clamp(min=1)
    return Inbox(neuron, count, total)


def _encode_features(codec: Codec, graph: NeuronGraph, features: Tensor) -> tuple[Tensor, Tensor]:
    """The slot (neuron, kind) of every feature, and the neurons' first state."""
    slots = feature_neurons(graph, features.device) * len(KINDS) + _feature_kinds(graph, features.device)
    size = graph.num_neurons * len(KINDS)
    sums = features.new_zeros(size).index_add(0, slots, features).view(-1, len(KINDS))
    counts = torch.bincount(slots, minlength=size).view(-1, len(KINDS))
    return slots, codec.encode_nodes(sums, counts)


def _decode_edges(
    codec: Codec, graph: NeuronGraph, bundles: Sequence[Bundle], edges: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    changes: dict[int, Tensor] = {}
    for bundle, states in zip(bundles, edges, strict=True):
        groups = [graph.blocks[m].size[0] for m in bundle.members]
        changes.update(
            zip(bundle.members, codec.decode_edges(states, bundle.kernel).split_with_sizes(groups), strict=True)
        )
    return tuple(changes[position] for position in range(len(graph.blocks)))


def _feature_kinds(graph: NeuronGraph, device: torch.device) -> Tensor:
    sizes = torch.tensor([feature.elements.numel() for feature in graph.features], dtype=torch.int64)
    kinds = torch.tensor([KINDS.index(feature.kind) for feature in graph.features], dtype=torch.int64)
    return kinds.repeat_interleave(sizes).to(device)
