"""The neuron graph: one analysis of a model from which encoding, coupling, removal and MACs all follow."""

from metaprune_cli.graph.encode import decode, encode
from metaprune_cli.graph.neuron_graph import NeuronGraph

__all__ = ["NeuronGraph", "decode", "encode"]
