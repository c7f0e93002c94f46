"""Plans that can be carried out: what breaks the model is locked, with its reason, and the plan made again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from torch import Tensor

from metaprune_cli.config import Route
from metaprune_cli.errors import NumericsError, TargetError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.pruning.plan import Plan
from metaprune_cli.pruning.surgery import Taken, UnfitError
from metaprune_cli.workflows.allowed import Allowed
from metaprune_cli.workflows.class_route import narrowed
from metaprune_cli.workflows.pruning import Pruned, PruningRun

Make = Callable[[Allowed], Plan]
"""A plan for the target, of what may go."""
OF_CLASSES = ("generate", "save_pretrained")
"""Methods for which people keep a class: what is left by a program has none of them."""
CHEAP = 0.02
"""The share of a plan's score that it may cost to stay in the class, where nobody says which route."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A model and a plan for it that passed its trial on meta.

    Attributes:
        run: the model.
        plan: what goes; it says what was locked to get there.
        allowed: what may go.
        make: how the plan was made.
        asked: which routes it was tried for.
    """

    run: PruningRun
    plan: Plan
    allowed: Allowed
    make: Make
    asked: Route

    @classmethod
    def of(cls, run: PruningRun, make: Make, score: Callable[[Tensor], float]) -> Planned:
        """A plan by the route that the settings ask for.

        ``auto`` takes what any route can do, and where that is a program, the class instead if it reaches the target
        too and little of the score is lost; a model whose class generates, or saves itself, stays in it at any price.

        Args:
            run: the model.
            make: how to plan.
            score: of what stays, the more the better.

        Raises:
            TargetError: the target cannot be met, or not with what had to be locked.
        """
        allowed = Allowed(run.graph, run.limits)
        asked = run.settings.route
        if asked != "auto" or isinstance(run.model, Program):
            return cls.settled(run, make, allowed, asked)
        best = cls._unheld(make, allowed)
        if best is not None and run.trials.by_class(best.kept) is None:
            return cls(run, replace(best, held=allowed.held), allowed, make, asked)
        kept = None
        with suppress(TargetError):
            kept = cls.settled(run, make, allowed, "class")
        owns = any(callable(getattr(run.model, name, None)) for name in OF_CLASSES)

        def is_cheap(beside: Plan | None) -> bool:
            return kept is not None and beside is not None and score(kept.plan.kept) >= (1 - CHEAP) * score(beside.kept)

        if kept is not None and (owns or is_cheap(best)):  # without its program, which takes long to record
            return kept
        free = cls.settled(run, make, allowed, asked)
        return kept if kept is not None and free.route != "class" and is_cheap(free.plan) else free

    @staticmethod
    def _unheld(make: Make, allowed: Allowed) -> Plan | None:
        """The plan if all can be carried out, which scores no less than any that can be.

        Raises:
            TargetError: the target cannot be met.
        """
        try:
            return make(allowed)
        except UnfitError:
            return None
        except TargetError as error:
            raise allowed.explained(error) from error

    @classmethod
    def settled(cls, run: PruningRun, make: Make, allowed: Allowed, asked: Route) -> Planned:
        """Plan, try, narrow down what may go, and plan again, until the trial passes.

        Raises:
            TargetError: the target cannot be met, or not with what had to be locked.
        """
        failure = run.failure_by(asked)
        while True:
            try:
                plan = make(allowed)
            except UnfitError as error:  # on the way, where smaller models are measured
                kept: Tensor = error.kept
            except TargetError as error:
                raise allowed.explained(error) from error
            else:
                kept = plan.kept
                if failure(kept) is None:
                    return cls(run, replace(plan, held=allowed.held), allowed, make, asked)
            allowed = cls._without_faults(run, allowed, asked, kept)

    def narrowed(self, kept: Tensor) -> Planned:
        """The same with less that may go, so that a removal like this one, which fails, can be carried out."""
        return replace(self, allowed=self._without_faults(self.run, self.allowed, self.asked, kept))

    @staticmethod
    def _without_faults(run: PruningRun, allowed: Allowed, asked: Route, kept: Tensor) -> Allowed:
        if asked == "class" or (asked == "auto" and not run.trials.has_program):
            return narrowed(run.trials, allowed, kept)
        failure = run.failure_by(asked)
        return allowed.without_faults(kept, failure) or allowed.without_all(kept, failure)

    @property
    def route(self) -> Taken:
        """What is left: the model's own class, or a program."""
        by_class = self.asked == "auto" and self.run.trials.by_class(self.plan.kept) is None
        return "class" if by_class or self.asked == "class" else "program"

    def carried_out(self) -> Pruned:
        """What is left by the plan; by another one, where what is left does not compute what it should.

        Raises:
            TargetError: the target cannot be met without what had to be locked.
            NumericsError: the model's own numbers are at fault, whatever goes.
        """
        try:
            return self.run.remove(self.plan)
        except NumericsError:
            allowed = self.allowed.without_faults(self.plan.kept, self.run.difference)
            if allowed is None:
                raise
        return Planned.settled(self.run, self.make, allowed, self.asked).carried_out()
