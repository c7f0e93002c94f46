"""The default backend: whole blocks of edges at once, in which no edge list is ever written out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.metanet.codec import KINDS, Codec
from metaprune_cli.metanet.layers import EPSILON, MessageLayer, deviation, normalise
from metaprune_cli.metanet.layout import Layout
from metaprune_cli.metanet.messages import Heard, decode, listen
from metaprune_cli.metanet.values import Values, feature_neurons


def run_blocks(
    codec: Codec, layers: Iterable[MessageLayer], graph: NeuronGraph, values: Values
) -> tuple[Values, Float[Tensor, "n h"]]:
    """The decoded change of every weight and feature of a graph, and the last (normalised) state of its neurons.

    Args:
        codec: encoders and decoders.
        layers: the message-passing layers, in order.
        graph: the structure.
        values: its (scaled) weights and features.
    """
    layout = Layout.of(graph, values.features.device)
    weights = layout.flatten(values.weights, values.features)
    identity = codec.identity[None]
    table = torch.cat([*(codec.edge_table(kernel) for kernel in layout.kernels), identity])
    slots, h = _encode_features(codec, graph, values.features)
    sources: list[Tensor] = []
    destinations: list[Tensor] = []
    for layer in layers:
        g = layer.gates(h)
        heard = listen(layout, weights, table, [*sources, *destinations], g.send, g.send * layer.sigma)
        h = layer.update(h, receive(g.receive, heard))
        sources.append(g.source.contiguous())
        destinations.append(g.destination.contiguous())
    out_table = torch.cat([*(codec.change_table(kernel) for kernel in layout.kernels), torch.zeros_like(identity)])
    change = layout.unflatten(decode(layout, weights, table, [*sources, *destinations], out_table))
    nodes = normalise(h)
    return Values(change, codec.decode_nodes(nodes).flatten()[slots]), nodes


def receive(gate: Float[Tensor, "n h"], heard: Heard) -> Float[Tensor, "n h4"]:
    """Mean, deviation, maximum and minimum of the messages along the edges plus those along the reversed edges.

    The receiving gate is common to a neuron's messages, so it is applied to their summary instead of to each of them.
    """
    received: Tensor = Receive.apply(gate, heard)
    return received


class Receive(torch.autograd.Function):
    """See :func:`receive`. One step instead of PyTorch's twenty, each of which reads and writes all of it."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, heard: Tensor) -> Tensor:
        """The sum, shape (n, 4h)."""
        ctx.save_for_backward(gate, heard)
        mean, variance, *extremes = heard.unbind(1)
        out = gate.new_empty(len(gate), 4, gate.shape[1])
        torch.mul(gate, mean.sum(0), out=out[:, 0])
        torch.sum(deviation(gate.square() * variance), 0, out=out[:, 1])
        for place, extreme in zip((2, 3), _turned(gate, [part.sum(0) for part in extremes]), strict=True):
            torch.mul(gate, extreme, out=out[:, place])
        return out.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the gate and of what was heard."""
        gate, heard = ctx.saved_tensors
        of_mean, of_deviation, *of_extremes = gradient.unflatten(1, (4, -1)).unbind(1)
        mean, variance, *extremes = heard.unbind(1)
        of_heard = torch.empty_like(heard)
        of_heard[:, 0] = of_mean * gate
        slope = of_deviation * gate / (gate.square() * variance + EPSILON).sqrt()
        torch.mul(slope, 0.5 * gate, out=of_heard[:, 1])
        for place, of_extreme in zip((2, 3), _turned(gate, of_extremes), strict=True):
            of_heard[:, place] = of_extreme * gate
        of_gate = of_mean * mean.sum(0) + (slope * variance).sum(0)
        for of_extreme, extreme in zip(of_extremes, _turned(gate, [part.sum(0) for part in extremes]), strict=True):
            of_gate.addcmul_(of_extreme, extreme)
        return of_gate, of_heard


def _turned(gate: Tensor, extremes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maximum and minimum; a negative gate swaps them."""
    high, low = extremes
    positive = gate > 0
    return torch.where(positive, high, low), torch.where(positive, low, high)


def _encode_features(codec: Codec, graph: NeuronGraph, features: Tensor) -> tuple[Tensor, Tensor]:
    """The slot (neuron, kind) of every feature, and the neurons' first state."""
    slots = feature_neurons(graph, features.device) * len(KINDS) + _feature_kinds(graph, features.device)
    size = graph.num_neurons * len(KINDS)
    sums = features.new_zeros(size).index_add(0, slots, features).view(-1, len(KINDS))
    counts = torch.bincount(slots, minlength=size).view(-1, len(KINDS))
    return slots, codec.encode_nodes(sums, counts)


def _feature_kinds(graph: NeuronGraph, device: torch.device) -> Tensor:
    sizes = torch.tensor([feature.elements.numel() for feature in graph.features], dtype=torch.int64)
    kinds = torch.tensor([KINDS.index(feature.kind) for feature in graph.features], dtype=torch.int64)
    return kinds.repeat_interleave(sizes).to(device)
