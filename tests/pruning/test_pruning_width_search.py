"""The evolution: within the budget, no worse than where it starts, the same by seed wherever it is cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from metaprune_cli.config import PruningRule
from metaprune_cli.errors import TargetError
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.width_search import Budget, Candidate, Evolution, History, evolve, fronts
from metaprune_cli.pruning.width_space import Genes, WidthSpace

SETTINGS = Evolution(population=12, iterations=5, parents=5, mutations=0.5, crossovers=0.5, mutate=0.2)


class Toy:
    """A space with limits, and a fitness by which some families matter more than others."""

    def __init__(self, graph: object, *rules: PruningRule) -> None:
        self.graph = graph
        self.limits = limits_of(graph, rules)
        self.space, self.cost = WidthSpace.of(graph, self.limits), Cost.of(graph).macs
        whole = self.cost(self.space.kept(self.space.whole()))
        self.budget = Budget(0.97 * whole / 2.5, whole / 2.5)
        self.asked: list[Genes] = []
        sizes = [order.size(1) for order in self.space.order]
        self.worth = [(place % 5 + 1) / size for place, size in enumerate(sizes)]

    def fitness(self, some: Sequence[Genes]) -> list[float]:
        self.asked += some
        return [-sum(w * g for w, g in zip(self.worth, genes, strict=True)) for genes in some]

    def found(
        self, budgets: Sequence[Budget] | None = None, settings: Evolution = SETTINGS, **given: object
    ) -> History:
        return evolve(self.space, self.cost, self.fitness, settings, budgets=budgets or [self.budget], **given)


@pytest.fixture
def toy(traced: Callable[..., object]) -> Toy:
    return Toy(traced("resnet18").graph)


def test_nothing_outside_the_budget_is_judged_or_kept(toy: Toy) -> None:
    found = toy.found()
    assert len(found.candidates) == len(toy.asked) == 60
    assert all(candidate.cost in toy.budget for candidate in found.candidates)
    assert len(set(toy.asked)) == 60
    assert {candidate.how for candidate in found.candidates} == {"random", "mutation", "crossover"}


def test_limits_rules_and_ties_hold_for_every_candidate(traced: Callable[..., object]) -> None:
    toy = Toy(
        traced("resnet18").graph,
        PruningRule("*", round_to=4, min_units=8),
        PruningRule(r"re:^layer1", tie=True),
        PruningRule("layer3*", ignore=True),
    )
    for candidate in toy.found().candidates:
        kept = toy.space.kept(candidate.genes)
        for number, family in enumerate(toy.graph.units.families):
            left, size = int(kept[family.units].sum()), len(family.units)
            assert size - left <= int(toy.limits.most[number])
            assert left % 4 == 0 or left == size
            if family.name.startswith("layer3") or family.locked:
                assert left == size
        tied = [f.units for n, f in enumerate(toy.graph.units.families) if toy.limits.tied[n] >= len(toy.limits.tied)]
        assert all(torch.equal(kept[tied[0]], kept[units]) for units in tied)


def test_it_finds_better_than_chance_and_never_worse_than_its_starts(toy: Toy) -> None:
    generator = torch.Generator().manual_seed(5)
    start = toy.space.within(generator, toy.cost, toy.budget.least, toy.budget.most)
    found = toy.found(starts=[("plain", start)])
    first = [candidate.fitness for candidate in found.candidates if candidate.iteration == 0]
    assert found.candidates[0].how == "plain"
    assert found.within(toy.budget)[0].fitness < min(first)


def test_the_seed_decides_and_what_is_known_changes_nothing(toy: Toy) -> None:
    whole, again, other = toy.found(), toy.found(), toy.found(seed=1)
    assert whole == again
    assert whole != other
    known = {candidate.genes: candidate.fitness for candidate in whole.candidates[:30]}
    resumed = evolve(
        toy.space,
        toy.cost,
        lambda some: [known[genes] if genes in known else toy.fitness([genes])[0] for genes in some],
        SETTINGS,
        budgets=[toy.budget],
    )
    assert resumed == whole


def test_trials_are_counted(toy: Toy) -> None:
    assert len(toy.found(settings=Evolution(12, 5, 5, 0.5, 0.5, 0.2, trials=17)).candidates) == 17


def test_more_starts_than_the_population_are_all_judged_and_nothing_besides(toy: Toy) -> None:
    starts = [("plain", candidate.genes) for candidate in toy.found().candidates[:9]]
    found = toy.found(settings=Evolution(6, 2, 5, 0.5, 0.5, 0.2), starts=starts)
    assert [candidate.iteration for candidate in found.candidates] == [0] * 9 + [1] * 6


def test_what_cannot_be_judged_is_no_parent(toy: Toy) -> None:
    toy.worth[0] = math.nan
    found = toy.found()
    assert all(candidate.fitness == math.inf for candidate in found.candidates)
    assert {candidate.how for candidate in found.candidates} == {"random"}


def test_one_search_for_several_budgets(toy: Toy) -> None:
    budgets = [Budget(share * toy.budget.least, share * toy.budget.most) for share in (1.0, 0.6)]
    found = toy.found(budgets, Evolution(20, 5, 10, 0.5, 0.5, 0.2))
    for budget in budgets:
        assert len(found.within(budget)) > 10
    assert all(budgets[1].least <= candidate.cost <= budgets[0].most for candidate in found.candidates)
    front = found.front()
    assert [c.fitness for c in front] == sorted((c.fitness for c in front), reverse=True)
    assert [c.cost for c in front] == sorted(c.cost for c in front)


def test_fronts_dominate_one_another() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0), (4.0, 2.0)]
    some = [Candidate((number,), "random", 0, *point) for number, point in enumerate(points)]
    assert [[c.genes[0] for c in front] for front in fronts(some)] == [[0, 1, 3], [2, 4]]


def test_a_budget_that_nobody_can_meet_is_said(toy: Toy) -> None:
    with pytest.raises(TargetError, match="No widths are small enough"):
        toy.found([Budget(1.0, 2.0)])
