"""Removal without surgery: the same network with everything that would go set to zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import fill_, hollow_copy, own_copies
from metaprune_cli.graph.slicing import masks
from metaprune_cli.pruning.cost import Cost


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


def gate_tensors(
    graph: NeuronGraph,
    tensors: Mapping[str, Tensor],
    kept: Bool[Tensor, " units"],
    scores: Float[Tensor, " units"],
    slope: float,
) -> dict[str, Tensor]:
    """The same function as :func:`mask_tensors` computes, through which the choice of units can be learnt.

    Every unit's outgoing weights are multiplied by a straight-through gate (Bengio et al., arXiv 1308.3432)

        g_u = kept_u + slope · (score_u − stop_gradient(score_u))

    whose value is 0 or 1, and whose gradient tells the score of *every* unit, removed ones included, what the unit
    would be worth; a neuron's gate is that of its column times that of its row. For that its incoming weights must
    stay as they are; units that meet other activations in a product (attention) are masked on both sides and learn
    nothing.

    Args:
        graph: the structure.
        tensors: the trainable entries, by name.
        kept: which units stay.
        scores: what the choice was made by, differentiable in ``tensors``.
        slope: how strongly a score feels its gate; 0 makes the choice a constant.
    """
    units = graph.units
    in_products = torch.zeros_like(kept)
    for product in graph.products:
        in_products[units.unit_of[product.neurons]] = True
        rows = units.row_of[product.neurons]
        in_products[rows[rows >= 0]] = True
    gated = mask_tensors(graph, tensors, kept | ~in_products)
    gates = kept.to(scores) + slope * (scores - scores.detach()) * units.prunable.to(scores)
    by_neuron = gates[units.unit_of.to(gates.device)]
    if units.on_grid.numel():
        on_grid = units.on_grid.to(gates.device)
        rows = gates[units.row_of.to(gates.device)[on_grid]]
        by_neuron = by_neuron.index_put((on_grid,), by_neuron[on_grid] * rows)
    for block in graph.blocks:
        if block.param in gated:
            tensor = gated[block.param]
            weights = block.weights(gated) * by_neuron[block.sources][:, None, :, None].to(tensor)
            gated[block.param] = block.scatter(tensor.reshape(-1), weights).view(tensor.shape)
    return gated


def at_fixed_cost(
    graph: NeuronGraph, scores: Float[Tensor, " units"], kept: Bool[Tensor, " units"]
) -> Float[Tensor, " units"]:
    """The same scores, whose gradient counts what a unit costs: who rises lifts the threshold that all must pass.

        s_u − Σ_v c_v (s_v − stop_gradient(s_v)) / Σ_v c_v

    With c the marginal MACs of every unit that is not locked, a change of scores then leaves the MACs as they are, to
    first order, where gates follow scores. Without it every useful unit would be asked to rise, whatever its cost.

    Args:
        graph: the structure.
        scores: differentiable.
        kept: what is chosen by them.
    """
    cost = (Cost.of(graph).marginal(kept) * graph.units.prunable).to(scores)
    return scores - (cost * (scores - scores.detach())).sum() / cost.sum()


def masked_copy(model: nn.Module, graph: NeuronGraph, kept: Bool[Tensor, " units"]) -> nn.Module:
    """A copy of ``model`` with zeros where units are gone; the argument is not changed."""
    own = model.state_dict()
    masked = hollow_copy(model)
    fill_(masked, own_copies(mask_tensors(graph, own, kept), own))
    return masked
