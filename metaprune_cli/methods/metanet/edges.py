"""The ``edges`` backend: PyTorch Geometric's message passing over ``to_pyg()``, the oracle of ``blocks``."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import Aggregation

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.pyg import IDENTITY, blocks_by_type
from metaprune_cli.methods.metanet.codec import KINDS, Codec
from metaprune_cli.methods.metanet.layers import MessageLayer, deviation, normalise
from metaprune_cli.methods.metanet.values import Values, place_values, read_values


class Deviation(Aggregation):  # type: ignore[misc]
    """Standard deviation by two passes; PyG's own takes the difference of two large squares."""

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """One deviation per set, in the signature PyG prescribes."""
        mean = self.reduce(x, index, ptr, dim_size, dim, reduce="mean")
        return deviation(self.reduce((x - mean[index]).square(), index, ptr, dim_size, dim, reduce="mean"))


class EdgeMessages(MessagePassing):  # type: ignore[misc]
    """Messages r(nᵢ) ⊙ s(nⱼ) ⊙ e along an edge list, aggregated in four ways side by side."""

    def __init__(self) -> None:
        super().__init__(aggr=["mean", Deviation(), "max", "min"])

    def forward(
        self,
        edge_index: Int[Tensor, "2 e"],
        receive: Float[Tensor, "n h"],
        send: Float[Tensor, "n h"],
        edges: Float[Tensor, "e h"],
    ) -> Float[Tensor, "n h4"]:
        """Aggregated messages at every neuron."""
        heard: Tensor = self.propagate(edge_index, receive=receive, send=send, edges=edges)
        return heard

    def message(self, receive_i: Tensor, send_j: Tensor, edges: Tensor) -> Tensor:
        """One message per edge."""
        return receive_i * send_j * edges


def run_edges(
    codec: Codec, layers: Iterable[MessageLayer], graph: NeuronGraph, values: Values
) -> tuple[Values, Float[Tensor, "n h"]]:
    """The same function as :func:`metaprune_cli.methods.metanet.blocks.run_blocks`, over explicit edges."""
    data = graph.with_tensors({**graph.tensors, **place_values(graph, values)}).to_pyg()
    kernels = {relation: blocks[0].kernel for relation, blocks in blocks_by_type(graph.structure).items()}
    counts = [data[relation].edge_index.shape[1] for relation in (*kernels, IDENTITY)]
    source, target = edge_index = torch.cat([data[relation].edge_index for relation in (*kernels, IDENTITY)], dim=1)
    states = [data[relation].edge_attr @ codec.edge_table(kernel) for relation, kernel in kernels.items()]
    edges = torch.cat([*states, codec.identity.expand(counts[-1], -1)])

    x, mask = data["neuron"].x, data["neuron"].mask
    kind = x.new_tensor([[name.split(".")[0] == kind for kind in KINDS] for name in data.columns]).view(-1, len(KINDS))
    h = codec.encode_nodes(graph, x @ kind, (mask.to(x) @ kind).long())
    messages = EdgeMessages()
    for layer in layers:
        g = layer.gates(h)
        ahead = messages(edge_index, g.receive, g.send, edges)
        back = messages(edge_index.flip(0), g.receive, g.send, layer.sigma * edges)
        h = layer.update(h, ahead + back)
        edges = edges * (1 + g.source[source] * g.destination[target] + g.source[target] * g.destination[source])

    for (relation, kernel), state in zip(kernels.items(), edges.split_with_sizes(counts)[:-1], strict=True):
        data[relation].edge_attr = state @ codec.change_table(kernel).T
    nodes = normalise(h)
    data["neuron"].x = codec.decode_nodes(nodes) @ kind.T
    changed = NeuronGraph.from_pyg(data)
    return read_values(changed, changed.tensors, values.features), nodes
