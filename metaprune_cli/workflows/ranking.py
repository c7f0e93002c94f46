"""The plan by a model's scores alone, all at once or in steps."""

from __future__ import annotations

import torch

from metaprune_cli.config import Scope
from metaprune_cli.pruning.criteria import USUAL
from metaprune_cli.pruning.plan import Plan, make_plan
from metaprune_cli.pruning.targets import Measure, Target
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.allowed import Allowed
from metaprune_cli.workflows.planned import Planned
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.sensitivities import scores_in


def ranked(
    run: PruningRun,
    goal: Target,
    measure: Measure,
    scope: Scope,
    rescore: int | None = None,
    progress: Progress | None = None,
) -> Planned:
    """The plan by a model's scores alone; it has passed its trial.

    Args:
        run: the model.
        goal: the target.
        measure: of its quantity.
        scope: how units of different families compare.
        rescore: in how many steps (None: as the settings say).
        progress: is told where something is measured on the way.

    Raises:
        TargetError: the target cannot be met.
        InputError: there are no images, where they are needed.
    """
    ranking = run if rescore is None else run.ranked_in(rescore)
    speedup, number = goal.factor or USUAL, ranking.settings.rescore
    scores = scores_in(scope, ranking, goal, progress)
    everything = torch.ones_like(scores, dtype=torch.bool)
    way = goal.steps(number, measure(everything)) if number > 1 else (goal,)

    def make(allowed: Allowed) -> Plan:
        kept = everything
        for step in way:
            left = scores if kept is everything else ranking.scores_left(kept, speedup)
            plan = make_plan(allowed.graph, left, step, scope=scope, limits=allowed.limits, measure=measure)
            kept = plan.kept
        return plan

    return Planned.of(run, make, lambda kept: float(scores[kept].sum()))
