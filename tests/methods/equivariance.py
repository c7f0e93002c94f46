"""One assertion: permute the hidden channels of a model, and what a metanetwork writes is permuted in the same way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.testing import assert_close

from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.metanet import MetaNetwork


def assert_permutation_equivariant(network: MetaNetwork, graph: NeuronGraph, backend: str, seed: int = 0) -> None:
    """The network commutes with a random renumbering of every family's channels."""
    order = random_order(graph, seed)
    straight = network(graph, backend=backend)
    permuted = network(graph, permute(graph, graph.tensors, order), backend=backend)
    expected = permute(graph, straight, order)
    for name in graph.tensors:
        assert_close(
            permuted[name], expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def random_order(graph: NeuronGraph, seed: int) -> Tensor:
    """Where each neuron goes, shape (neurons,): units that can be removed change places within their family."""
    generator = torch.Generator().manual_seed(seed)
    units, order = graph.units, torch.arange(graph.num_neurons)
    layer = torch.repeat_interleave(torch.tensor([layer.size for layer in graph.layers]))
    for family in units.families:
        free = family.units[units.prunable[family.units]]
        goal = free[torch.randperm(free.numel(), generator=generator)]
        for unit, place in zip(free.tolist(), goal.tolist(), strict=True):
            here, there = ((units.unit_of == u).nonzero().flatten() for u in (unit, place))
            assert torch.equal(layer[here], layer[there])
            order[here] = there
    assert not torch.equal(order, torch.arange(graph.num_neurons))
    return order


def permute(graph: NeuronGraph, tensors: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """The same model with neuron ``n`` in the place of neuron ``order[n]``."""
    moved = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for block in graph.blocks:
        outer, inner = (_places(ids, order) for ids in (block.destinations, block.sources))
        assert torch.equal(outer[0][:, :1].expand_as(inner[0]), inner[0])  # whole groups go to whole groups
        index = (outer[0][:, :, None], outer[1][:, :, None], inner[1][:, None, :])
        block.weights(moved)[index] = block.weights(tensors).detach()
    for feature in graph.features:
        here, there = (ids.argsort(stable=True) for ids in (order[feature.neurons], feature.neurons))
        old = tensors[feature.name].detach().reshape(-1)
        moved[feature.name].view(-1)[feature.elements[there]] = old[feature.elements[here]]
    return moved | {alias: moved[first] for alias, first in graph.aliases.items()}


def _places(ids: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Group and index in the group at which each of ``ids``, shape (groups, n), lies after the permutation."""
    place = torch.full((order.numel(),), -1)
    place[ids.flatten()] = torch.arange(ids.numel())
    goal = place[order[ids]]
    assert bool((goal >= 0).all())
    return goal // ids.size(1), goal % ids.size(1)
