"""Group sparsity as a penalty: the less important a unit is in its family, the harder it is pulled to zero.

    ½ · reg · Σ_c γ_c Σ_{w of c} w²,   γ_c = α^((max I − I_c) / (max I − min I)),   I = √S, max and min over the family

S is the group magnitude; an element that two units own feels both; units that cannot be removed feel nothing (DepGraph,
arXiv 2301.12900, section 3.3, as its code has it; the same is the objective of arXiv 2506.12041, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune_cli.config import OptimSettings
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.pruning import unit_scores


def sparse_learning(
    model: nn.Module, graph: NeuronGraph | None, settings: OptimSettings
) -> Callable[[], Tensor] | None:
    """The penalty for an epoch, if the settings want one and there is a graph; what it pulls at is decided here."""
    if graph is None or not settings.sparsity:
        return None
    weights = dict(model.named_parameters())
    pull = growth(graph, model.state_dict(), settings.sparsity_alpha)
    return lambda: settings.sparsity * penalty(graph, weights, pull)


def growth(graph: NeuronGraph, tensors: Mapping[str, Tensor], alpha: float) -> Float[Tensor, " units"]:
    """γ of every unit: from 1 for a family's most important unit to ``alpha`` for its least; 0 where it is locked.

    Args:
        graph: the structure.
        tensors: the state dict, by entry.
        alpha: above 1.
    """
    importance, units = unit_scores(graph, tensors, "group-l2").sqrt(), graph.units
    empty = importance.new_zeros(len(units.families))
    highest = empty.scatter_reduce(0, units.family_of, importance, "amax", include_self=False)[units.family_of]
    lowest = empty.scatter_reduce(0, units.family_of, importance, "amin", include_self=False)[units.family_of]
    spread = torch.where(highest > lowest, highest - lowest, 1)
    return torch.where(units.prunable, alpha ** ((highest - importance) / spread), 0)


def penalty(graph: NeuronGraph, weights: Mapping[str, Tensor], pull: Float[Tensor, " units"]) -> Float[Tensor, ""]:
    """½ Σ_c γ_c Σ w² over all that the units c own, differentiable in the weights alone.

    Args:
        graph: the structure.
        weights: entries of a state dict; what is not among them counts nothing.
        pull: γ of every unit.
    """
    units = graph.units
    owner = pull[units.unit_of]
    owner[units.on_grid] += pull[units.row_of[units.on_grid]]
    owner = owner.to(next(iter(weights.values())).device)
    total = owner.new_zeros(())
    for block in graph.blocks:
        if block.param in weights:
            squares = block.weights(weights).square().sum(3)
            both = owner[block.destinations][:, :, None] + owner[block.sources][:, None, :]
            total = total + (both * squares).sum()
    for feature in graph.features:
        if feature.name in weights and feature.kind == "scale":
            scales = weights[feature.name].flatten()[feature.elements]
            total = total + (owner[feature.neurons] * scales.square()).sum()
    return total / 2
