"""Widths that a model may have: what the limits say, whatever is drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from metaprune_cli.config import PruningRule
from metaprune_cli.errors import TargetError
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.criteria import unit_scores
from metaprune_cli.pruning.plan import make_plan
from metaprune_cli.pruning.ranking import plain_limits
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.width_space import Genes, WidthSpace

NAMES = ("mlp", "residual", "vit", "resnet8", "mobilenet_v2")


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
def test_genes_of_all_ones_are_the_whole_model(name: str, traced: Callable[..., object]) -> None:
    graph = traced(name).graph
    space = WidthSpace.of(graph, plain_limits(graph.units, 0.8))
    assert bool(space.kept(space.whole()).all())
    assert space.genes_of(space.kept(space.smallest())) == space.smallest()


@pytest.mark.parametrize("name", NAMES)
def test_limits_hold_for_whatever_is_drawn(name: str, traced: Callable[..., object]) -> None:
    graph = traced(name).graph
    rule = PruningRule("*", min_units=2, round_to=2)
    limits = limits_of(graph, [rule], 0.75)
    space = WidthSpace.of(graph, limits, torch.rand(graph.units.num_units, generator=_random()))
    cost = Cost.of(graph).macs
    before = cost(torch.ones(graph.units.num_units, dtype=torch.bool))
    for seed in range(5):
        for genes in (space.uniform(_random(seed)), space.within(_random(seed), cost, 0.0, before / 1.5)):
            kept = space.kept(genes)
            assert bool((kept | graph.units.prunable).all())
            for number, family in enumerate(graph.units.families):
                left = int(kept[family.units].sum())
                gone = len(family.units) - left
                assert gone <= int(limits.most[number])
                assert not gone or left % 2 == 0


def test_a_budget_is_met_from_below(traced: Callable[..., object]) -> None:
    graph = traced("resnet18").graph
    space, cost = WidthSpace.of(graph, plain_limits(graph.units, 0.8)), Cost.of(graph).macs
    budget = cost(space.kept(space.whole())) / 2.5
    drawn: set[Genes] = set()
    for seed in range(20):
        genes = space.within(_random(seed), cost, 0.97 * budget, budget)
        assert 0.97 * budget <= cost(space.kept(genes)) <= budget
        drawn.add(genes)
    assert len(drawn) == 20


def test_the_order_is_that_of_the_ranking(traced: Callable[..., object]) -> None:
    graph = traced("resnet8").graph
    scores = unit_scores(graph, graph.tensors, "group-l2", normaliser="max")
    plan = make_plan(graph, scores, 2.0)
    space = WidthSpace.of(graph, plain_limits(graph.units, 0.8), scores)
    assert torch.equal(space.kept(space.genes_of(plan.kept)), plan.kept)


def test_tied_families_share_a_gene(traced: Callable[..., object]) -> None:
    graph = traced("resnet18").graph
    families = graph.units.families
    tied = [n for n, family in enumerate(families) if family.name.startswith("layer1") and not family.locked]
    names = tuple(graph.units.families[n].name for n in tied)
    rules = [PruningRule("re:" + "|".join(f"^{name}$" for name in names), tie=True)]
    space = WidthSpace.of(graph, limits_of(graph, rules), torch.rand(graph.units.num_units, generator=_random()))
    assert tuple(tied) in space.families
    kept = space.kept(space.uniform(_random()))
    first, *others = (kept[graph.units.families[n].units] for n in tied)
    assert all(torch.equal(first, other) for other in others)


def test_what_must_go_goes_from_the_largest_too(traced: Callable[..., object]) -> None:
    model, graph = traced("resnet8").model, traced("resnet8").graph
    space = WidthSpace.of(graph, limits_of(graph, [PruningRule("type:Conv2d", min_ratio=0.25)], model=model))
    sizes = [order.size(1) for order in space.order]
    assert all(number <= 0.75 * size for number, size in zip(space.whole(), sizes, strict=True))


def test_no_free_family_is_said(traced: Callable[..., object]) -> None:
    graph = traced("resnet8").graph
    with pytest.raises(TargetError, match=r"No family of this model may lose any units"):
        WidthSpace.of(graph, limits_of(graph, [PruningRule("*", ignore=True)]))


def test_a_budget_below_the_smallest_is_said(traced: Callable[..., object]) -> None:
    graph = traced("resnet8").graph
    space = WidthSpace.of(graph, plain_limits(graph.units, 0.5))
    with pytest.raises(TargetError, match=r"No widths are small enough"):
        space.within(_random(), Cost.of(graph).macs, 0.0, 10.0)
