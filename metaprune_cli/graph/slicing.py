"""What is left of a model when units are removed: MACs, parameters, masks and slices, all from the graph alone."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import EdgeBlock, NeuronGraph

Kept = Bool[Tensor, " units"]
"""Which units stay."""


def alive_neurons(graph: NeuronGraph, kept: Kept) -> Bool[Tensor, " neurons"]:
    """Which neurons stay."""
    return graph.units.alive(kept)


def macs_of(graph: NeuronGraph, kept: Kept) -> int:
    """Multiply-accumulates of one sample once the other units are gone."""
    alive = alive_neurons(graph, kept)
    blocks = sum(_alive_elements(block, alive) * block.positions for block in graph.blocks)
    return blocks + sum(int(alive[p.neurons].sum()) * p.macs_per_neuron for p in graph.products)


def params_of(graph: NeuronGraph, kept: Kept) -> int:
    """Trainable parameters once the other units are gone."""
    alive = alive_neurons(graph, kept)
    total = sum(graph.tensors[name].numel() for name in graph.trainable)
    for block in graph.blocks:
        if block.param in graph.trainable:
            total -= math.prod(block.size) - _alive_elements(block, alive)
    for feature in graph.features:
        if feature.name in graph.trainable:
            total -= int((~alive[feature.neurons]).sum())
    return total


def masks(graph: NeuronGraph, kept: Kept) -> dict[str, Tensor]:
    """A boolean mask, in the entry's own shape, for every entry that loses elements."""
    alive = alive_neurons(graph, kept)
    flat: dict[str, Tensor] = {}

    def mask(name: str) -> Tensor:
        return flat.setdefault(name, torch.ones(graph.tensors[name].numel(), dtype=torch.bool))

    for block in graph.blocks:
        out, into = alive[block.destinations], alive[block.sources]
        if not bool(out.all()) or not bool(into.all()):
            region = mask(block.param).as_strided(block.size, block.stride, block.offset)
            region &= out[:, :, None, None] & into[:, None, :, None]
    for feature in graph.features:
        if not bool(alive[feature.neurons].all()):
            mask(feature.name)[feature.elements] &= alive[feature.neurons]
    return {name: m.view(graph.tensors[name].shape) for name, m in flat.items()}


def kept_indices(mask: Tensor) -> tuple[Tensor, ...]:
    """Per dimension the indices that survive.

    Raises:
        NumericsError: the survivors are not an outer product of indices per dimension.
    """
    kept = []
    for d in range(mask.dim()):
        others = [o for o in range(mask.dim()) if o != d]
        kept.append((mask.any(dim=others) if others else mask).nonzero().flatten())
    if int(mask.count_nonzero()) != math.prod(k.numel() for k in kept):
        raise NumericsError(
            "The removal would leave a parameter with holes",
            expected="survivors that form an outer product of kept indices per dimension",
            got=f"{int(mask.count_nonzero())} elements over {[k.numel() for k in kept]} indices",
        )
    return tuple(kept)


def slice_tensors(graph: NeuronGraph, kept: Kept) -> dict[str, Tensor]:
    """The state dict of the smaller model: every entry, sliced where it loses elements.

    Raises:
        NumericsError: the removal would not leave rectangular parameters; names the entry.
    """
    sliced = dict(graph.tensors)
    for name, mask in masks(graph, kept).items():
        try:
            indices = kept_indices(mask)
        except NumericsError as error:
            raise NumericsError(error.what, where=name, got=error.details["got"]) from None
        tensor = graph.tensors[name]
        for d, index in enumerate(indices):
            if index.numel() < tensor.size(d):
                tensor = tensor.index_select(d, index.to(tensor.device))
        sliced[name] = tensor
    for alias, name in graph.aliases.items():
        sliced[alias] = sliced[name]
    return sliced


def _alive_elements(block: EdgeBlock, alive: Tensor) -> int:
    out = alive[block.destinations].sum(1)
    into = alive[block.sources].sum(1)
    return int((out * into).sum()) * block.size[3]
