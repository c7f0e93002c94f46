"""Straight-through gates compute what masks compute, and tell every unit what it would be worth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning import at_fixed_cost, differentiable_scores, gate_tensors, mask_tensors, select, unit_scores
from metaprune_cli.pruning.cost import Cost


def leaves(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["cifar:resnet8", "cifar:mobilenet_v1", "cifar:vit"])
def test_gates_compute_what_masks_compute(name: str) -> None:
    torch.manual_seed(0)
    model = build(Architecture(name, {"image_size": 8, "in_channels": 1}, None)).eval().double()
    graph = encode(model, torch.randn(1, 1, 8, 8, dtype=torch.float64))
    weights = leaves(model)
    scores = differentiable_scores(graph, {**graph.tensors, **weights}, "group-l2")
    assert scores is not None
    torch.testing.assert_close(scores.detach(), unit_scores(graph, graph.tensors, "group-l2"))
    kept = select(graph, scores, 1.2)
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    gated = functional_call(model, gate_tensors(graph, weights, kept, scores, 1.0), (images,))
    masked = functional_call(model, mask_tensors(graph, weights, kept), (images,))
    torch.testing.assert_close(gated, masked)


def test_units_that_were_removed_learn_what_they_would_be_worth() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    graph = encode(model, torch.randn(1, 1, 4, 4))
    weights = leaves(model)
    kept = select(graph, unit_scores(graph, graph.tensors, "group-l2"), 1.5)
    scores = torch.rand(graph.units.num_units, requires_grad=True)
    images = torch.randn(8, 1, 4, 4)
    gated = gate_tensors(graph, weights, kept, scores, 1.0)
    functional_call(model, gated, (images,)).square().sum().backward()
    assert scores.grad is not None
    assert bool((scores.grad[~kept & graph.units.prunable] != 0).all())
    assert bool((scores.grad[~graph.units.prunable] == 0).all())


def test_without_a_slope_the_choice_is_a_constant() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = encode(model, torch.randn(1, 3))
    scores = torch.rand(graph.units.num_units, requires_grad=True)
    kept = select(graph, scores, 1.5)
    gated = gate_tensors(graph, leaves(model), kept, scores, 0.0)
    gated["2.weight"].sum().backward()
    assert scores.grad is None or not bool(scores.grad.any())


@pytest.mark.parametrize("criterion", ["taylor", "random"])
def test_criteria_beyond_the_weights_have_no_gradient(criterion: str) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = encode(model, torch.randn(1, 3))
    assert differentiable_scores(graph, graph.tensors, criterion) is None


def test_the_marginal_cost_is_what_one_unit_more_costs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = encode(model, torch.randn(1, 3, 9, 9))
    cost, units = Cost.of(graph), graph.units
    kept = torch.rand(units.num_units, generator=torch.Generator().manual_seed(0)) > 0.4
    marginal = cost.marginal(kept)
    for unit in range(units.num_units):
        with_it, without = kept.clone(), kept.clone()
        with_it[unit], without[unit] = True, False
        assert cost.macs(with_it) - cost.macs(without) == marginal[unit]


def test_marginal_costs_add_up_over_heads_and_columns() -> None:
    model = build(Architecture("cifar:vit", {"image_size": 8, "in_channels": 1}, None)).eval()
    graph = encode(model, torch.randn(1, 1, 8, 8))
    everything = torch.ones(graph.units.num_units, dtype=torch.bool)
    marginal = Cost.of(graph).marginal(everything)
    heads = [family for family in graph.units.families if family.kind == "heads"]
    assert heads
    for family in heads:  # equal heads cost the same
        assert len(set(marginal[family.units].tolist())) == 1
        assert int(marginal[family.units[0]]) > 0


def test_at_fixed_cost_a_unit_rises_by_what_it_gives_for_its_macs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = encode(model, torch.randn(1, 3, 9, 9))
    scores = torch.rand(graph.units.num_units, requires_grad=True)
    kept = select(graph, scores, 1.5)
    cost = (Cost.of(graph).marginal(kept) * graph.units.prunable).double()
    fixed = at_fixed_cost(graph, scores, kept)
    torch.testing.assert_close(fixed, scores)
    worth = torch.rand(graph.units.num_units) * graph.units.prunable
    (slope,) = torch.autograd.grad((fixed * worth).sum(), scores)
    expected = worth.double() - cost / cost.sum() * worth.double().sum()
    torch.testing.assert_close(slope.double(), expected, rtol=1e-4, atol=1e-6)
    (proportional,) = torch.autograd.grad((at_fixed_cost(graph, scores, kept) * cost.float()).sum(), scores)
    assert float(proportional.abs().max()) < 1e-4 * float(cost.max())  # worth as much as it costs: nobody moves
