"""What is left when units go: masks, slices, and the proof that nothing but rectangles is cut."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.slicing import kept_indices, macs_of, masks, params_of, slice_tensors
from metaprune_cli.graph.structure import Feature


@cache
def network() -> tuple[nn.Module, NeuronGraph]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.Flatten(), nn.Linear(4 * 9, 3)
    ).eval()
    return model, encode(model, torch.randn(1, 2, 5, 5))


def without(graph: NeuronGraph, entry: str, *rows: int) -> torch.Tensor:
    """Everything but these rows of an entry."""
    block = next(block for block in graph.blocks if block.param == entry)
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    kept[graph.units.unit_of[block.destinations[0, list(rows)]]] = False
    return kept


def test_everything_kept_is_everything() -> None:
    _, graph = network()
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    assert masks(graph, kept) == {}
    assert macs_of(graph, kept) == graph.macs
    assert params_of(graph, kept) == sum(graph.tensors[name].numel() for name in graph.trainable)
    assert all(tensor is graph.tensors[name] for name, tensor in slice_tensors(graph, kept).items())


def test_a_channel_goes_from_every_entry_it_touches() -> None:
    model, graph = network()
    small = slice_tensors(graph, without(graph, "0.weight", 1, 3))
    stay = [0, 2, 4]
    assert torch.equal(small["0.weight"], model[0].weight.detach()[stay])
    assert torch.equal(small["1.running_var"], model[1].running_var[stay])
    assert torch.equal(small["3.weight"], model[3].weight.detach()[:, stay])
    assert torch.equal(small["5.weight"], model[5].weight.detach())


def test_a_flattened_channel_takes_all_its_positions() -> None:
    model, graph = network()
    small = slice_tensors(graph, without(graph, "3.weight", 2))
    assert torch.equal(small["5.weight"], model[5].weight.detach().view(3, 4, 9)[:, [0, 1, 3]].flatten(1))


@settings(deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_figures_are_those_of_the_slices(seed: int) -> None:
    _, graph = network()
    coins = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed))
    kept = (coins > 0.4) | ~graph.units.prunable
    small = slice_tensors(graph, kept)
    assert params_of(graph, kept) == sum(small[name].numel() for name in graph.trainable)
    positions = {block.param: block.positions for block in graph.blocks}
    assert macs_of(graph, kept) == sum(small[name].numel() * count for name, count in positions.items())


def test_shared_tensors_stay_shared() -> None:
    _, graph = network()
    structure = dataclasses.replace(graph.structure, aliases={"again": "0.weight"})
    shared = NeuronGraph(structure, {**graph.tensors, "again": graph.tensors["0.weight"]})
    small = slice_tensors(shared, without(shared, "0.weight", 0))
    assert small["again"] is small["0.weight"]


@pytest.mark.parametrize(
    ("mask", "indices"), [([[1, 0, 1], [1, 0, 1]], [[0, 1], [0, 2]]), ([[0, 0, 0], [0, 1, 1]], [[1], [1, 2]])]
)
def test_survivors_form_an_outer_product(mask: list[list[int]], indices: list[list[int]]) -> None:
    assert [index.tolist() for index in kept_indices(torch.tensor(mask, dtype=torch.bool))] == indices


def test_holes_are_an_error_that_names_the_entry() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    graph = encode(model, torch.randn(1, 3))
    block = graph.blocks[1]
    crooked = Feature("1.weight", "scale", torch.tensor([0]), block.sources[0, 1:2])  # the element of sources 0 and 1
    structure = dataclasses.replace(graph.structure, features=(*graph.features, crooked))
    graph = NeuronGraph(structure, graph.tensors)
    with pytest.raises(NumericsError, match=r"(?s)parameter with holes.*where: 1\.weight"):
        slice_tensors(graph, without(graph, "0.weight", 1))
