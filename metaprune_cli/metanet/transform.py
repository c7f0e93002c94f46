"""A model through a metanetwork."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.metanet.network import BackendName, MetaNetwork, Written


def transform(
    model: nn.Module, example_inputs: Any, metanetwork: MetaNetwork, backend: BackendName = "blocks"
) -> nn.Module:
    """A new model of the same architecture with rewritten weights; the argument is not changed.

    Args:
        model: any model that can be encoded.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        metanetwork: a trained metanetwork.
        backend: ``blocks`` or ``edges``.

    Raises:
        NumericsError: the metanetwork produced NaN or infinity; every such entry is named.
    """
    from metaprune_cli.graph import decode, encode

    graph = encode(model, example_inputs)
    return decode(graph.with_tensors(rewritten(graph, metanetwork, backend).tensors), model)


@torch.no_grad()
def rewritten(graph: NeuronGraph, metanetwork: MetaNetwork, backend: BackendName = "blocks") -> Written:
    """The weights, and the importance of neurons where the metanetwork has a head for it, all of them finite.

    Raises:
        NumericsError: the metanetwork produced NaN or infinity; every such entry is named.
    """
    written = metanetwork.rewrite(graph, backend=backend)
    if broken := [name for name, tensor in written.tensors.items() if not tensor.isfinite().all()]:
        raise NumericsError(
            "The metanetwork's output is not finite",
            where=", ".join(broken),
            next_step="check the model's own weights, or train the metanetwork with a smaller learning rate or ratio",
        )
    return written
