"""Whether a smaller model still does to its neurons what the whole one did to them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph


def departure(graph: NeuronGraph, kept: Bool[Tensor, " units"], small: NeuronGraph) -> str | None:
    """Where the trace of a smaller model is not what is left of the whole one's.

    A program that runs is no proof: ``view(4, -1)`` of three heads makes four of them, of other neurons.

    Args:
        graph: the whole model's structure.
        kept: which units the smaller model has.
        small: the smaller model, traced anew.

    Returns:
        What differs, or None where every weight meets the same neurons as before.
    """
    alive = graph.units.alive(kept)
    owner = torch.repeat_interleave(torch.tensor([layer.size for layer in graph.layers]))
    sizes = owner[alive].bincount(minlength=len(graph.layers)).tolist()
    if sizes != [layer.size for layer in small.layers]:
        return "the layers have other neurons"
    old = alive.nonzero().flatten()
    before, after = graph.units, small.units
    for wanted, found in ((before.unit_of, after.unit_of), (before.row_of, after.row_of)):
        if not _same_partition(wanted[old], found):
            return "other neurons are coupled"
    if len(graph.blocks) != len(small.blocks) or len(graph.features) != len(small.features):
        return "parameters take part in other operators"
    for mine, theirs in zip(graph.blocks, small.blocks, strict=True):
        sides = ((mine.sources, theirs.sources), (mine.destinations, theirs.destinations))
        if mine.size[3] != theirs.size[3] or not all(torch.equal(n[alive[n]], old[m.flatten()]) for n, m in sides):
            return f"{mine.param} meets other neurons"
    for feature, same in zip(graph.features, small.features, strict=True):
        if not torch.equal(feature.neurons[alive[feature.neurons]], old[same.neurons]):
            return f"{feature.name} meets other neurons"
    return None


def _same_partition(first: Int[Tensor, " n"], second: Int[Tensor, " n"]) -> bool:
    """Whether two labellings group the same elements together."""
    pairs: int = torch.stack([first, second]).unique(dim=1).size(1)
    return bool(pairs == first.unique().numel() == second.unique().numel())
