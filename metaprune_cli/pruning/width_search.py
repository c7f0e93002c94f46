"""Evolution over widths: which numbers of units, within a budget, leave the model that does best.

The search of MetaPruning (arXiv 1903.10258, algorithm 1): the best so far are parents, children come to be by mutation
(each gene, with a small probability, takes another value of its grid) and by crossover (each gene is one of the two
parents'). Other than there, no child is thrown away for what it costs: one outside the budget is brought into it by a
common exponent of its shares, and the choices that need no search are among the first candidates.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from metaprune_cli.pruning.width_space import Genes, WidthSpace

How = Literal["plain", "uniform", "rescored", "sensitivity", "start", "random", "mutation", "crossover"]
TRIES = 20
"""To find a child that was not there before; then a random one is drawn instead."""

Cost = Callable[[Bool[Tensor, " units"]], float]
Fitness = Callable[[Sequence[Genes]], Sequence[float]]
"""The lower the better, for each; NaN is the worst. It may judge them side by side."""


@dataclass(frozen=True)
class Budget:
    """What a candidate may cost."""

    least: float
    most: float

    def __contains__(self, cost: float) -> bool:
        return self.least <= cost <= self.most


@dataclass(frozen=True)
class Evolution:
    """How the search goes; the values are those of ``config.SearchSettings``."""

    population: int
    iterations: int
    parents: int
    mutations: float
    crossovers: float
    mutate: float
    trials: int | None = None


@dataclass(frozen=True)
class Candidate:
    """Widths that were tried.

    Attributes:
        genes: how many units stay.
        how: where they come from.
        iteration: in which, from 0 on.
        cost: of the budget's quantity.
        fitness: the lower the better; infinite where the model cannot do with them.
    """

    genes: Genes
    how: How
    iteration: int
    cost: float
    fitness: float


@dataclass(frozen=True)
class History:
    """All candidates, in the order in which they were tried; no two have the same genes."""

    candidates: tuple[Candidate, ...] = ()

    def within(self, budget: Budget) -> tuple[Candidate, ...]:
        """Those that cost no less and no more, best first."""
        found = (candidate for candidate in self.candidates if candidate.cost in budget)
        return tuple(sorted(found, key=lambda candidate: candidate.fitness))

    def front(self) -> tuple[Candidate, ...]:
        """Those of which no other is both cheaper and better, cheapest first."""
        sound = [candidate for candidate in self.candidates if math.isfinite(candidate.fitness)]
        return fronts(sound)[0] if sound else ()


def evolve(
    space: WidthSpace,
    cost: Cost,
    fitness: Fitness,
    settings: Evolution,
    *,
    budgets: Sequence[Budget],
    starts: Sequence[tuple[How, Genes]] = (),
    seed: int = 0,
    on_iteration: Callable[[History], None] | None = None,
) -> History:
    """Search; with several budgets for all of them at once, by non-dominated sorting over cost and fitness.

    All random numbers of an iteration follow from the seed and its number, and what is drawn depends on the genes and
    fitness of earlier candidates alone: a run that is told the fitness of some genes beforehand is the same run.

    Args:
        space: the widths there are.
        cost: of what is kept; never rises when units go.
        fitness: of genes; asked once for each, an iteration at a time.
        settings: sizes and probabilities.
        budgets: no candidate costs less or more than one of them allows, or, of several, than all do together.
        starts: candidates of the first iteration; those outside every budget are left out.
        seed: of all draws.
        on_iteration: is told what there is after each.

    Raises:
        TargetError: even the smallest widths cost more than the smallest budget.
    """
    draw = _Draw(space, cost, settings, tuple(budgets))
    history = History()
    for iteration in range(settings.iterations):
        generator = torch.Generator().manual_seed(_derived(seed, iteration))
        children = draw.children(history, starts if not iteration else (), generator)
        room = len(children) if settings.trials is None else settings.trials - len(history.candidates)
        children = children[: max(room, 0)]
        if not children:
            break
        found = fitness([genes for _, genes, _ in children])
        judged = (
            Candidate(genes, how, iteration, price, math.inf if math.isnan(value) else value)
            for (how, genes, price), value in zip(children, found, strict=True)
        )
        history = History((*history.candidates, *judged))
        if on_iteration is not None:
            on_iteration(history)
    return history


def fronts(candidates: Sequence[Candidate]) -> list[tuple[Candidate, ...]]:
    """The candidates in fronts, cheapest first: nobody in the first is dominated, in the next only by the first, ..."""
    left, found = list(candidates), list[tuple[Candidate, ...]]()
    while left:
        best, front = math.inf, list[Candidate]()
        for candidate in sorted(left, key=lambda c: (c.cost, c.fitness)):
            if candidate.fitness < best or not front:
                front.append(candidate)
                best = candidate.fitness
        found.append(tuple(front))
        left = [candidate for candidate in left if candidate not in front]
    return found


def _spread(front: Sequence[Candidate]) -> list[Candidate]:
    """A front, loneliest first: by how far a candidate's neighbours are from each other (NSGA-II)."""
    ordered = sorted(front, key=lambda c: c.cost)
    prices = [math.log(candidate.cost) if candidate.cost > 0 else 0.0 for candidate in ordered]
    gaps = [
        prices[place + 1] - prices[place - 1] if 0 < place < len(ordered) - 1 else math.inf
        for place in range(len(ordered))
    ]
    return [ordered[place] for place in sorted(range(len(ordered)), key=lambda place: -gaps[place])]


@dataclass(frozen=True, eq=False)
class _Draw:
    """Draws the candidates of an iteration."""

    space: WidthSpace
    cost: Cost
    settings: Evolution
    budgets: tuple[Budget, ...]

    def children(
        self, history: History, starts: Sequence[tuple[How, Genes]], generator: torch.Generator
    ) -> list[tuple[How, Genes, float]]:
        """New ones, none of them twice, each with what it costs."""
        seen = {candidate.genes for candidate in history.candidates}
        parents = [candidate.genes for candidate in self._parents(history)]
        found: list[tuple[How, Genes, float]] = []
        for how, genes in starts:
            price = self.cost(self.space.kept(genes))
            if genes not in seen and any(price in budget for budget in self.budgets):
                found.append((how, genes, price))
                seen.add(genes)
        for how in self._kinds(len(parents))[: max(self.settings.population - len(found), 0)]:
            child = self._new(how, parents, seen, generator) or self._new("random", parents, seen, generator)
            if child is not None:
                found.append(child)
                seen.add(child[1])
        return found

    def _kinds(self, parents: int) -> list[How]:
        """What the population is made of."""
        size = self.settings.population
        mutations = round(size * self.settings.mutations) if parents else 0
        crossovers = min(round(size * self.settings.crossovers), size - mutations) if parents > 1 else 0
        kinds: list[How] = ["mutation"] * mutations + ["crossover"] * crossovers  # type: ignore[assignment]
        return kinds + ["random"] * (size - len(kinds))

    def _parents(self, history: History) -> Iterator[Candidate]:
        sound = [candidate for candidate in history.candidates if math.isfinite(candidate.fitness)]
        if len(self.budgets) > 1:
            ordered = [candidate for front in fronts(sound) for candidate in _spread(front)]
        else:
            ordered = sorted(sound, key=lambda candidate: candidate.fitness)
        yield from ordered[: self.settings.parents]

    def _new(
        self, how: How, parents: Sequence[Genes], seen: set[Genes], generator: torch.Generator
    ) -> tuple[How, Genes, float] | None:
        for _ in range(TRIES):
            budget = self._budget(generator)
            if how == "random":
                genes = self.space.within(generator, self.cost, budget.least, budget.most)
            else:
                child = self._mutated(parents, generator) if how == "mutation" else self._crossed(parents, generator)
                genes = self.space.brought_within(child, generator, self.cost, budget.least, budget.most)
            price = self.cost(self.space.kept(genes))
            if genes not in seen and price in budget:
                return how, genes, price
        return None

    def _budget(self, generator: torch.Generator) -> Budget:
        """One of the budgets; of several, half of the time any one between them."""
        first = self.budgets[_number(len(self.budgets), generator)]
        if len(self.budgets) == 1 or _number(2, generator):
            return first
        low, high = (f(math.log(budget.most) for budget in self.budgets) for f in (min, max))
        most = math.exp(low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64)))
        return Budget(most * first.least / first.most, most)

    def _mutated(self, parents: Sequence[Genes], generator: torch.Generator) -> Genes:
        genes = list(parents[_number(len(parents), generator)])
        changed = (torch.rand(len(genes), generator=generator) < self.settings.mutate).nonzero().flatten().tolist()
        for gene in changed or [_number(len(genes), generator)]:
            others = [number for number in self.space.grids[gene] if number != genes[gene]]
            genes[gene] = others[_number(len(others), generator)] if others else genes[gene]
        return tuple(genes)

    def _crossed(self, parents: Sequence[Genes], generator: torch.Generator) -> Genes:
        one, other = torch.randperm(len(parents), generator=generator)[:2].tolist()
        from_one = (torch.rand(len(self.space.grids), generator=generator) < 0.5).tolist()
        return tuple(a if first else b for a, b, first in zip(parents[one], parents[other], from_one, strict=True))


def _number(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (1,), generator=generator))


def _derived(seed: int, iteration: int) -> int:
    """A seed of its own for every iteration."""
    return int.from_bytes(hashlib.sha256(f"{seed} search {iteration}".encode()).digest()[:8], "big") >> 1
