"""What may go of a model, and how that narrows when a removal turns out to break it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaprune_cli.errors import TargetError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.breaking import lock_of
from metaprune_cli.graph.trials import at_fault
from metaprune_cli.graph.units import Family
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.plan import Held
from metaprune_cli.pruning.ranking import Limits

Failure = Callable[[Tensor], str | None]
"""Why certain units cannot be left alone; None if they can."""
_NAMED = 3


@dataclass(frozen=True, eq=False)
class Allowed:
    """What may go of every family.

    Attributes:
        graph: the model's, with what was locked so far.
        limits: how much of each family.
        held: what was locked, in the order in which it was found.
        limited: what may lose fewer units than the settings say, likewise.
    """

    graph: NeuronGraph
    limits: Limits
    held: tuple[Held, ...] = ()
    limited: tuple[Held, ...] = ()

    def locking(self, faults: Sequence[tuple[int, str]]) -> Allowed:
        """The same without certain families, by number, each with its reason."""
        families = self.graph.units.families
        locks = [lock_of(self.graph, families[number], reason) for number, reason in faults]
        held = tuple(Held(families[number].name, reason) for number, reason in faults)
        return replace(self, graph=self.graph.with_locks((*self.graph.locks, *locks)), held=(*self.held, *held))

    def without_faults(self, kept: Tensor, failure: Failure) -> Allowed | None:
        """The same without the families that make a removal fail; None where no family in particular does."""
        gains, families = gains_of(self.graph, kept), self.graph.units.families
        shrunk = sorted(gains, key=lambda number: -gains[number])  # what saves little is given up first
        faults = at_fault(shrunk, lambda numbers: failure(only(kept, [families[number] for number in numbers])))
        return self.locking(faults) if faults else None

    def without_all(self, kept: Tensor, failure: Failure) -> Allowed:
        """The same without any family that loses units: it fails even if nothing goes."""
        reason = failure(torch.ones_like(kept)) or "its removal breaks the program"
        return self.locking([(number, reason) for number in shrunk_by(self.graph, kept)])

    def explained(self, error: TargetError) -> TargetError:
        """The error, which says as well what had to be locked, or may lose less."""
        found = (*self.held, *self.limited)
        if not found:
            return error
        more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
        done = "limited" if not self.held else "locked or limited" if self.limited else "locked"
        also = "\n".join(
            [
                f"{done}, because what is left would not run:",
                *(f"{one.family}: {one.reason}" for one in found[:_NAMED]),
                *more,
            ]
        )
        said = error.details
        again = TargetError(
            error.what,
            expected=said["expected"],
            got=also if said["got"] is None else f"{said['got']}; {also}",
            where=said["where"],
            next_step=None if said["next step"] is None else str(said["next step"]),
        )
        again.feasible = error.feasible
        return again


def shrunk_by(graph: NeuronGraph, kept: Tensor) -> list[int]:
    """The numbers of the families that lose units."""
    return [n for n, family in enumerate(graph.units.families) if not bool(kept[family.units].all())]


def gains_of(graph: NeuronGraph, kept: Tensor) -> Mapping[int, float]:
    """For every family that loses units, by number, the MACs that this loss alone saves."""
    macs, families = Cost.of(graph).macs, graph.units.families
    whole = macs(torch.ones_like(kept))
    return {number: whole - macs(only(kept, [families[number]])) for number in shrunk_by(graph, kept)}


def only(kept: Tensor, families: Sequence[Family]) -> Tensor:
    """The removal from these families, and nothing else."""
    found = torch.ones_like(kept)
    for family in families:
        found[family.units] = kept[family.units]
    return found
