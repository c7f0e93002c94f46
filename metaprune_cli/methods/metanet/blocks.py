"""The default backend: whole blocks of edges at once, in which no edge list is ever written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.metanet.codec import KINDS, Codec
from metaprune_cli.methods.metanet.engine import EdgeInputs
from metaprune_cli.methods.metanet.layers import MessageLayer, normalise
from metaprune_cli.methods.metanet.layout import Layout
from metaprune_cli.methods.metanet.messages import decode, engine_for, first_states, listen
from metaprune_cli.methods.metanet.values import Values, feature_neurons


def run_blocks(
    codec: Codec,
    layers: Sequence[MessageLayer],
    graph: NeuronGraph,
    values: Values,
    precision: torch.dtype | None = None,
) -> tuple[Values, Float[Tensor, "n h"]]:
    """The decoded change of every weight and feature of a graph, and the last (normalised) state of its neurons.

    Args:
        codec: encoders and decoders.
        layers: the message-passing layers, in order.
        graph: the structure.
        values: its (scaled) weights and features.
        precision: of the edges' states while they are computed; None: that of the values.
    """
    layout = Layout.of(graph, values.features.device, precision)
    weights = layout.flatten(values.weights, values.features)
    identity = codec.identity[None]
    table = torch.cat([*(codec.edge_table(kernel) for kernel in layout.kernels), identity])
    slots, h = _encode_features(codec, graph, values.features)
    sources: list[Tensor] = []
    destinations: list[Tensor] = []
    engine = engine_for(layout, weights, len(layers))
    states = first_states(engine, layout, table, len(layers))
    for layer in layers:
        g = layer.gates(h)
        edges = EdgeInputs(layout, weights, table, [*sources, *destinations])
        heard, states = listen(engine, edges, g.receive, (g.send, g.send * layer.sigma), states)
        h = layer.update(h, heard)
        sources.append(g.source.contiguous())
        destinations.append(g.destination.contiguous())
    out_table = torch.cat([*(codec.change_table(kernel) for kernel in layout.kernels), torch.zeros_like(identity)])
    edges = EdgeInputs(layout, weights, table, [*sources, *destinations])
    flat = decode(engine, edges, out_table, states)
    change = layout.unflatten(flat)
    nodes = normalise(h)
    return Values(change, codec.decode_nodes(nodes).flatten()[slots]), nodes


def _encode_features(codec: Codec, graph: NeuronGraph, features: Tensor) -> tuple[Tensor, Tensor]:
    """The slot (neuron, kind) of every feature, and the neurons' first state."""
    slots = feature_neurons(graph, features.device) * len(KINDS) + _feature_kinds(graph, features.device)
    size = graph.num_neurons * len(KINDS)
    sums = features.new_zeros(size).index_add(0, slots, features).view(-1, len(KINDS))
    counts = torch.bincount(slots, minlength=size).view(-1, len(KINDS))
    return slots, codec.encode_nodes(graph, sums, counts)


def _feature_kinds(graph: NeuronGraph, device: torch.device) -> Tensor:
    sizes = torch.tensor([feature.elements.numel() for feature in graph.features], dtype=torch.int64)
    kinds = torch.tensor([KINDS.index(feature.kind) for feature in graph.features], dtype=torch.int64)
    return kinds.repeat_interleave(sizes).to(device)
