"""Removal: a new, smaller network."""

from __future__ import annotations

from torch import nn

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import fill_, hollow_copy, own_copies, resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.pruning.plan import Plan


def apply_plan(model: nn.Module, graph: NeuronGraph, plan: Plan) -> nn.Module:
    """Take the units that ``plan`` gives up out of a copy of ``model``.

    Args:
        model: the network, whose weights are sliced; not changed.
        graph: its structure.
        plan: what stays.

    Returns:
        The smaller network: same classes, training mode, ``requires_grad``, devices and dtypes.

    Raises:
        InputError: a module's attributes cannot be brought in line with its new shapes.
        NumericsError: what stays of a tensor would not be rectangular.
    """
    own = graph.with_tensors(model.state_dict())
    tensors = slice_tensors(own, plan.kept)
    small = hollow_copy(model)
    resize_(small, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    fill_(small, own_copies(tensors, own.tensors))
    return small
