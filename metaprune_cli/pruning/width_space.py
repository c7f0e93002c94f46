"""How wide the layers of a model may be: one gene for every family that may lose units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.units import Units
from metaprune_cli.pruning.ranking import Limits

Genes = tuple[int, ...]
"""Numbers of units that stay, one for every gene of a :class:`WidthSpace`."""

SCALES = tuple(step / 100 for step in range(10, 101, 3))  # MetaPruning, arXiv 1903.10258
HALVINGS = 12
"""Of the interval in which the common exponent lies: finer than any grid."""
LARGEST_EXPONENT = 16.0
DIRECTIONS = 8
"""Random directions tried where the first does not end in the band."""


@dataclass(frozen=True, eq=False)
class WidthSpace:
    """All widths a graph may have under limits.

    Attributes:
        units: of the graph.
        families: for each gene the number of its family, or of all families that are tied and share it.
        grids: for each gene the numbers of units that may stay, ascending; the last is all (or as many as may stay
            where some must go).
        order: for each gene its families' units, best first; the first so many stay: int64,
            shape (families, n).
    """

    units: Units
    families: tuple[tuple[int, ...], ...]
    grids: tuple[tuple[int, ...], ...]
    order: tuple[Tensor, ...]

    @classmethod
    def of(cls, graph: NeuronGraph, limits: Limits, scores: Float[Tensor, " units"] | None = None) -> WidthSpace:
        """The space of ``graph``: unique(max(1, round(n · s))) for s = 0.10, 0.13, …, 1, as far as ``limits`` allow.

        Args:
            graph: the structure; its tensors do not matter.
            limits: what may go of each family.
            scores: the higher, the longer a unit stays; None: the first of every family stay longest.

        Raises:
            TargetError: no family may lose any units.
        """
        units = graph.units
        if scores is not None and scores.shape != (units.num_units,):
            raise InputError("The scores do not fit the graph.", expected=f"({units.num_units},)", got=scores.shape)
        found = []
        for members in _tied(limits):
            order, fixed = _order(units, members, scores)
            grid = _grid(order.size(1), max(fixed, 1), limits, members[0])
            if len(grid) > 1 or grid[0] < order.size(1):
                found.append((members, grid, order))
        if not found:
            reasons = sorted({family.locked for family in units.families if family.locked})
            raise TargetError(
                "No family of this model may lose any units, so there are no widths to choose from.",
                expected="at least one family that is neither locked nor ignored",
                got="; ".join(reasons[:5]) or "limits that leave no room",
                next_step="metaprune inspect lists the families; loosen the rules, or raise max_ratio",
            )
        families, grids, orders = zip(*found, strict=True)
        return cls(units, families, grids, orders)

    def ordered_by(self, scores: Float[Tensor, " units"]) -> WidthSpace:
        """The same widths for a model of the same structure, whose units stay in an order of their own."""
        orders = tuple(_order(self.units, members, scores)[0] for members in self.families)
        return WidthSpace(self.units, self.families, self.grids, orders)

    def whole(self) -> Genes:
        """The most that may stay of everything."""
        return tuple(grid[-1] for grid in self.grids)

    def smallest(self) -> Genes:
        """The least that may stay of everything."""
        return tuple(grid[0] for grid in self.grids)

    def kept(self, genes: Genes) -> Bool[Tensor, " units"]:
        """The units that stay: the first so many of every family, and all of those that have no gene."""
        gene_of, place = self._places
        return place < torch.tensor((*genes, 1))[gene_of]

    def genes_of(self, kept: Bool[Tensor, " units"]) -> Genes:
        """How many units of each gene's family are kept, whichever they are; on the grid or between its steps."""
        return tuple(int(kept[order[0]].sum()) for order in self.order)

    def uniform(self, generator: torch.Generator) -> Genes:
        """Every gene by itself, each number of its grid as likely as the others."""
        return tuple(self.drawn(gene, generator) for gene in range(len(self.grids)))

    def drawn(self, gene: int, generator: torch.Generator) -> int:
        """A number of one gene's grid."""
        grid = self.grids[gene]
        return grid[int(torch.randint(len(grid), (1,), generator=generator))]

    def within(
        self, generator: torch.Generator, cost: Callable[[Bool[Tensor, " units"]], float], least: float, most: float
    ) -> Genes:
        """Random widths that cost at most ``most`` and, where the grids are fine enough for it, at least ``least``.

        A random direction r gives every family the share r^t, where the one exponent t is bisected until the cost
        fits; families in random order then take further steps of their grids while that still fits. What comes
        closest of several directions is returned where none of them reaches ``least``.

        Raises:
            TargetError: even the smallest widths cost more than ``most``.
        """
        smallest = cost(self.kept(self.smallest()))
        if smallest > most:
            raise TargetError(
                "No widths are small enough.",
                expected=f"at least {smallest:g}, what the smallest widths cost",
                got=f"{most:g}",
                next_step="ask for less, raise max_ratio, or loosen the rules",
            )
        closest, highest = self.smallest(), smallest
        for _ in range(DIRECTIONS):
            shares = torch.rand(len(self.grids), generator=generator, dtype=torch.float64)
            found = self.fitted(lambda exponent, r=shares: self.nearest(r**exponent), cost, least, most)  # type: ignore[misc]
            found, reached = self.filled(found, generator, cost, least, most)
            if reached >= least:
                return found
            if reached > highest:
                closest, highest = found, reached
        return closest

    def brought_within(
        self,
        genes: Genes,
        generator: torch.Generator,
        cost: Callable[[Bool[Tensor, " units"]], float],
        least: float,
        most: float,
    ) -> Genes:
        """The same widths if they fit; else their shares to a common power, and then as in :meth:`within`."""
        if least <= cost(self.kept(genes)) <= most:
            return genes
        sizes = torch.tensor([order.size(1) for order in self.order], dtype=torch.float64)
        # what is whole could not shrink: no power of 1 is less
        shares = torch.minimum(torch.tensor(genes, dtype=torch.float64), sizes - 0.5) / sizes
        found = self.fitted(lambda exponent: self.nearest(shares**exponent), cost, least, most)
        return self.filled(found, generator, cost, least, most)[0]

    def nearest(self, shares: Float[Tensor, " genes"]) -> Genes:
        """The widths closest to these shares of every gene's family."""
        wanted = [share * order.size(1) for share, order in zip(shares.tolist(), self.order, strict=True)]
        return tuple(
            min(grid, key=lambda n, w=w: abs(n - w))  # type: ignore[misc]
            for grid, w in zip(self.grids, wanted, strict=True)
        )

    def fitted(
        self,
        widths: Callable[[float], Genes],
        cost: Callable[[Bool[Tensor, " units"]], float],
        least: float,
        most: float,
    ) -> Genes:
        """The widest of ``widths(exponent)`` that cost no more than ``most``, or the first found in the band."""
        low, high, found = 0.0, LARGEST_EXPONENT, self.smallest()
        for halving in range(HALVINGS):
            middle = 1.0 if not halving else (low + high) / 2
            tried = widths(middle)
            reached = cost(self.kept(tried))
            if reached > most:
                low = middle
                continue
            high, found = middle, tried
            if reached >= least:
                break
        return found

    def filled(
        self,
        genes: Genes,
        generator: torch.Generator,
        cost: Callable[[Bool[Tensor, " units"]], float],
        least: float,
        most: float,
    ) -> tuple[Genes, float]:
        """Single steps up the grids, in random order, while the cost is under the band; and the cost then."""
        reached = cost(self.kept(genes))
        for gene in torch.randperm(len(self.grids), generator=generator).tolist():
            for wider in self._above(gene, genes[gene]):
                tried = (*genes[:gene], wider, *genes[gene + 1 :])
                if reached >= least or (then := cost(self.kept(tried))) > most:
                    break
                genes, reached = tried, then
        return genes, reached

    def _above(self, gene: int, number: int) -> Iterator[int]:
        return (wider for wider in self.grids[gene] if wider > number)

    @cached_property
    def _places(self) -> tuple[Int[Tensor, " units"], Int[Tensor, " units"]]:
        """For every unit its gene and its place in the order; units without one are first of a last gene."""
        gene_of = torch.full((self.units.num_units,), len(self.order))
        place = torch.zeros_like(gene_of)
        for gene, order in enumerate(self.order):
            gene_of[order] = gene
            place[order] = torch.arange(order.size(1)).expand_as(order)
        return gene_of, place


def _tied(limits: Limits) -> list[tuple[int, ...]]:
    """Families that share a gene, in order of the first of each."""
    groups: dict[int, list[int]] = {}
    for family, tie in enumerate(limits.tied.tolist()):
        groups.setdefault(tie, []).append(family)
    return [tuple(group) for group in groups.values()]


def _order(units: Units, members: tuple[int, ...], scores: Tensor | None) -> tuple[Int[Tensor, "families n"], int]:
    """The families' units, best first, and how many at the front may not go; the same places in all of them."""
    rows = torch.stack([units.families[family].units for family in members])
    fixed = ~units.prunable[rows].all(0)
    if scores is None:
        order = torch.arange(rows.size(1))
    else:  # the units that a ranking would remove last are first here
        order = scores.detach().cpu()[rows].mean(0).argsort(stable=True).flip(0)
    order = order[(~fixed[order]).long().argsort(stable=True)]
    return rows[:, order], int(fixed.sum())


def _grid(size: int, fewest: int, limits: Limits, family: int) -> tuple[int, ...]:
    """How many of ``size`` units may stay, ascending."""
    multiple = int(limits.multiple[family])
    low = max(fewest, size - int(limits.most[family]))
    high = size - int(limits.least[family])
    numbers = {max(1, round(size * scale / multiple)) * multiple for scale in SCALES} | {low, high}
    allowed = {n for n in numbers if low <= n <= high and n % multiple == 0}
    if high == size:
        allowed.add(size)
    return tuple(sorted(allowed)) or (size,)
