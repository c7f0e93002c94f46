"""Removal: a new, smaller network."""

from __future__ import annotations

import copy

from torch import nn

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import fill_, resize_
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
    tensors = slice_tensors(graph.with_tensors(model.state_dict()), plan.kept)
    small = copy.deepcopy(model)
    resize_(small, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    fill_(small, {name: tensor.clone() for name, tensor in tensors.items()})
    return small
