"""All widths that a model can have under the settings of pruning, and the crops that run them."""

from __future__ import annotations

import torch

from metaprune_cli.errors import TargetError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.crops import Crops, probes_of
from metaprune_cli.pruning.width_space import WidthSpace
from metaprune_cli.workflows.allowed import Allowed
from metaprune_cli.workflows.class_route import narrowed
from metaprune_cli.workflows.pruning import PruningRun

ENOUGH = 1.5
"""A class that follows to this speed-up is preferred to a program, which is written anew for all widths."""


def widths_and_crops(run: PruningRun, *, ordered: bool = True) -> tuple[WidthSpace, Crops]:
    """The widths of a model and its crops.

    Of a model whose class does not follow everything, what it does not follow is held back, where enough is left; else
    the model runs as a program.

    Args:
        run: the model, its limits, scores and trials.
        ordered: whether units stay by their scores; else the first of every family do.

    Raises:
        TargetError: nothing may go.
        UnfitError: the route that is asked for does not follow.
    """
    scores = run.scores() if ordered else None
    asked = run.settings.route
    allowed, space = Allowed(run.graph, run.limits), WidthSpace.of(run.graph, run.limits, scores)
    if asked != "program" and not isinstance(run.model, Program):
        try:
            found = _by_class(run, allowed, scores)
        except TargetError:
            found = None
        cost = Cost.of(run.graph).macs
        if found is not None and (asked == "class" or cost(space.kept(space.whole())) >= ENOUGH * cost(found[1])):
            space = found[0]
            return space, Crops.of(
                run.model, run.graph, run.example, "class", probes=probes_of(space), trials=run.trials
            )
    return space, Crops.of(run.model, run.graph, run.example, asked, probes=probes_of(space), trials=run.trials)


def _by_class(run: PruningRun, allowed: Allowed, scores: torch.Tensor | None) -> tuple[WidthSpace, torch.Tensor]:
    """The widths that the class follows, and the smallest of them, as units.

    Raises:
        TargetError: there are none.
    """
    while True:
        space = WidthSpace.of(allowed.graph, allowed.limits, scores)
        failed = next((kept for kept in probes_of(space) if run.trials.by_class(kept) is not None), None)
        if failed is None:
            return space, space.kept(space.smallest())
        allowed = narrowed(run.trials, allowed, failed)
