"""Plans that can be carried out: what breaks the model is locked, with its reason, and the plan made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError, TargetError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.dry_run import lock_of
from metaprune_cli.graph.trials import at_fault
from metaprune_cli.graph.units import Family
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.plan import Held, Plan
from metaprune_cli.pruning.surgery import Taken, UnfitError
from metaprune_cli.workflows.pruning import Pruned, PruningRun

Make = Callable[[NeuronGraph], Plan]
"""A plan for the target, on a graph that has more locks than the model's own."""
Failure = Callable[[Tensor], str | None]
"""Why certain units cannot be left alone; None if they can."""
_NAMED = 3


@dataclass(frozen=True, eq=False)
class Planned:
    """A model and a plan for it that passed its trial on meta.

    Attributes:
        run: the model.
        plan: what goes; it says what was locked to get there.
        graph: the model's, with these locks.
        make: how the plan was made.
    """

    run: PruningRun
    plan: Plan
    graph: NeuronGraph
    make: Make

    @classmethod
    def of(cls, run: PruningRun, make: Make, graph: NeuronGraph | None = None, held: tuple[Held, ...] = ()) -> Planned:
        """Plan, try, lock what breaks, and plan again, until nothing does.

        Args:
            run: the model.
            make: how to plan.
            graph: the model's, with what was locked so far.
            held: what that was.

        Raises:
            TargetError: the target cannot be met, or not with what had to be locked.
        """
        graph = run.graph if graph is None else graph
        while True:
            try:
                plan = make(graph)
            except UnfitError as error:  # on the way, where smaller models are measured
                kept: Tensor = error.kept
            except TargetError as error:
                raise _with_held(error, held) from error
            else:
                kept = plan.kept
                if run.failure(kept) is None:
                    return cls(run, replace(plan, held=held), graph, make)
            graph, further = _locked(graph, kept, run.failure) or _all_locked(graph, kept, run.failure)
            held += further

    @property
    def route(self) -> Taken:
        """What is left: the model's own class, or a program."""
        asked = self.run.settings.route
        by_class = asked == "auto" and self.run.trials.by_class(self.plan.kept) is None
        return "class" if by_class or asked == "class" else "program"

    def carried_out(self) -> Pruned:
        """What is left by the plan; by another one, where what is left does not compute what it should.

        Raises:
            TargetError: the target cannot be met without what had to be locked.
            NumericsError: the model's own numbers are at fault, whatever goes.
        """
        try:
            return self.run.remove(self.plan)
        except NumericsError:
            found = _locked(self.graph, self.plan.kept, self.run.difference)
            if found is None:
                raise
        return Planned.of(self.run, self.make, found[0], (*self.plan.held, *found[1])).carried_out()


def _locked(graph: NeuronGraph, kept: Tensor, failure: Failure) -> tuple[NeuronGraph, tuple[Held, ...]] | None:
    """The graph with what makes this removal fail locked; None where nothing in particular does."""
    gains = _gains(graph, kept)
    shrunk = sorted(gains, key=lambda number: -gains[number])  # what saves little is given up first
    families = graph.units.families

    def of(numbers: Sequence[int]) -> str | None:
        return failure(_only(kept, [families[number] for number in numbers]))

    faults = at_fault(shrunk, of)
    return None if not faults else _with_locks(graph, [(families[number], reason) for number, reason in faults])


def _all_locked(graph: NeuronGraph, kept: Tensor, failure: Failure) -> tuple[NeuronGraph, tuple[Held, ...]]:
    """Where it fails even if nothing goes, nothing may."""
    reason = failure(torch.ones_like(kept)) or "its removal breaks the program"
    shrunk = [family for family in graph.units.families if not bool(kept[family.units].all())]
    return _with_locks(graph, [(family, reason) for family in shrunk])


def _with_locks(graph: NeuronGraph, faults: Sequence[tuple[Family, str]]) -> tuple[NeuronGraph, tuple[Held, ...]]:
    locks = [lock_of(graph, family, reason) for family, reason in faults]
    held = tuple(Held(family.name, reason) for family, reason in faults)
    return graph.with_locks((*graph.locks, *locks)), held


def _gains(graph: NeuronGraph, kept: Tensor) -> dict[int, float]:
    """For every family that loses units, by number, the MACs that this loss alone saves."""
    macs, families = Cost.of(graph).macs, graph.units.families
    shrunk = [number for number, family in enumerate(families) if not bool(kept[family.units].all())]
    whole = macs(torch.ones_like(kept))
    return {number: whole - macs(_only(kept, [families[number]])) for number in shrunk}


def _only(kept: Tensor, families: Sequence[Family]) -> Tensor:
    """The removal from these families, and nothing else."""
    found = torch.ones_like(kept)
    for family in families:
        found[family.units] = kept[family.units]
    return found


def _with_held(error: TargetError, held: Sequence[Held]) -> TargetError:
    """The error, which says as well what had to be locked."""
    if not held:
        return error
    named = [f"{one.family}: {one.reason}" for one in held[:_NAMED]]
    more = [f"and {len(held) - _NAMED} more"] if len(held) > _NAMED else []
    details = error.details
    also = "locked, because what is left would not run:\n" + "\n".join([*named, *more])
    again = TargetError(
        error.what,
        expected=details["expected"],
        got=also if details["got"] is None else f"{details['got']}; {also}",
        where=details["where"],
        next_step=None if details["next step"] is None else str(details["next step"]),
    )
    again.feasible = error.feasible
    return again
