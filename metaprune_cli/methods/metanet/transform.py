"""A model through a metanetwork."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.metanet.network import BackendName, MetaNetwork, Written
from metaprune_cli.metrics.calling import takes_model

log = logging.getLogger(__name__)


@takes_model
def transform(
    model: nn.Module,
    example_inputs: Any,
    metanetwork: MetaNetwork | str | Path = "builtin",
    backend: BackendName = "blocks",
) -> nn.Module:
    """A new model of the same architecture with rewritten weights; the argument is not changed.

    Args:
        model: any model that can be encoded.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        metanetwork: a trained metanetwork, its file, or the name of one that comes with the package.
        backend: ``blocks`` or ``edges``.

    Raises:
        InputError: there is no such metanetwork.
        NumericsError: the metanetwork produced NaN or infinity; every such entry is named.
    """
    from metaprune_cli.graph import decode, encode

    graph = encode(model, example_inputs)
    return decode(graph.with_tensors(rewritten(graph, opened(metanetwork), backend).tensors), model)


def opened(metanetwork: MetaNetwork | str | Path) -> MetaNetwork:
    """The metanetwork that is meant: itself, that of a file, or one that comes with the package, by name.

    Raises:
        InputError: there is none.
    """
    return metanetwork if isinstance(metanetwork, MetaNetwork) else MetaNetwork.load(metanetwork).eval()


@torch.no_grad()
def rewritten(graph: NeuronGraph, metanetwork: MetaNetwork, backend: BackendName = "blocks") -> Written:
    """The weights, and the importance of neurons where the metanetwork has a head for it, all of them finite.

    Raises:
        NumericsError: the metanetwork produced NaN or infinity; every such entry is named.
    """
    if metanetwork.config.evidence and not graph.evidence:
        log.warning(
            "This metanetwork learnt to read what training images show of a model, and there are none: it chooses "
            "worse without. Give it a data set, or use the one called builtin, which learnt without."
        )
    written = metanetwork.rewrite(graph, backend=backend)
    if broken := [name for name, tensor in written.tensors.items() if not tensor.isfinite().all()]:
        raise NumericsError(
            "The metanetwork's output is not finite",
            where=", ".join(broken),
            next_step="check the model's own weights, or train the metanetwork with a smaller learning rate or ratio",
        )
    return written
