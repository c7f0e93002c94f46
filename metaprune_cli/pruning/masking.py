"""Removal without surgery: the same network with everything that would go set to zero."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor, nn

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import masks


def mask_tensors(graph: NeuronGraph, tensors: Mapping[str, Tensor], kept: Bool[Tensor, " units"]) -> dict[str, Tensor]:
    """The tensors with zeros where units are gone; differentiable, entries that lose nothing are passed on as they are.

    Args:
        graph: the structure.
        tensors: a state dict, or the part of it that is wanted, by entry.
        kept: which units stay, shape (units,).
    """
    lost = {name: ~mask for name, mask in masks(graph, kept).items()}
    for alias, name in graph.aliases.items():
        if name in lost:
            lost[alias] = lost[name]
    return {
        # filled, not multiplied: what is gone must not spread a NaN
        name: tensor.masked_fill(lost[name].to(tensor.device), 0) if name in lost else tensor
        for name, tensor in tensors.items()
    }


def masked_copy(model: nn.Module, graph: NeuronGraph, kept: Bool[Tensor, " units"]) -> nn.Module:
    """A copy of ``model`` with zeros where units are gone; the argument is not changed."""
    masked = copy.deepcopy(model)
    masked.load_state_dict(mask_tensors(graph, model.state_dict(), kept))
    return masked
