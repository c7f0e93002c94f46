"""The curves over the speed-up of a model: pruned further and further, BatchNorm recalibrated, not finetuned."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import product

from metaprune_cli.config import PruneSettings, Scope
from metaprune_cli.errors import TargetError
from metaprune_cli.pruning import Plan, apply_plan, check, make_plan
from metaprune_cli.pruning.surgery import UnfitError
from metaprune_cli.pruning.targets import Target
from metaprune_cli.reports.conditions import Conditions
from metaprune_cli.reports.rows import Row
from metaprune_cli.reports.summary import speedup_label
from metaprune_cli.tasks import Score, Task
from metaprune_cli.training.loop import recalibrate_
from metaprune_cli.workflows.arms import Arm, arm_of, methods_of
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.lineage import Descent, descent
from metaprune_cli.workflows.loading import ModelSource, Opened
from metaprune_cli.workflows.paths import stem
from metaprune_cli.workflows.pruning import PruningRun, criterion_for, scope_for
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.sensitivities import scores_in
from metaprune_cli.workflows.structures import Structures

log = logging.getLogger(__name__)


def curves(
    models: Sequence[Opened], bases: Sequence[Row], pruning: PruneSettings, source: ModelSource, conditions: Conditions
) -> list[Row]:
    """One row for each model, scope and speed-up that can be reached; what cannot is logged.

    A model that a method had a part in is pruned by the scope of the settings, any other by both: the arms without a
    method differ in nothing else.

    Args:
        models: where the curves start.
        bases: for each model the row it is measured against.
        pruning: criterion, scope and largest ratio; its own speed-ups are not used.
        source: how the models were opened.
        conditions: how each point is measured, and the speed-ups.
    """
    structures = Structures(source)
    conditions.progress.begin("curves", len(models))
    rows: list[Row] = []
    for opened, base in zip(models, bases, strict=True):
        rows.extend(_points(opened, structures, base, pruning, conditions))
        conditions.progress.step()
    conditions.progress.end()
    return rows


def _points(
    opened: Opened, structures: Structures, base: Row, pruning: PruneSettings, conditions: Conditions
) -> Iterator[Row]:
    model, graph, found = opened.model.cpu(), structures.graph_of(opened), descent(opened.lineage, opened.path)
    train, batch_size = conditions.splits.train, conditions.data.batch_size
    run = PruningRun.of(opened, graph, pruning, Calibration(Samples.of(conditions.data), pruning, conditions.device))
    for (scope, arm), speedup in product(
        arms_from(opened, pruning, conditions.task).items(), conditions.settings.curve
    ):
        name = f"{stem(opened.path)} @ {speedup_label(speedup)}, {arm}"
        try:
            scores = scores_in(scope, run, Target("macs", factor=speedup))
            plan = make_plan(graph, scores, speedup, scope=scope, max_ratio=pruning.max_ratio)
            small = apply_plan(model, graph, plan, opened.example(), trials=run.trials)
        except (TargetError, UnfitError) as error:
            log.warning("%s: no point at %s (%s): %s", opened.path, speedup_label(speedup), arm, error.what)
            continue
        check(model, small, graph, plan, opened.example())
        small = small.to(conditions.device)
        augment = conditions.data.augment != "none"
        recalibrate_(small, train, conditions.settings.batches, batch_size=batch_size, augment=augment)
        yield _point(name, found, arm, speedup, base, plan, conditions.score(small))


def arms_from(opened: Opened, pruning: PruneSettings, task: Task) -> dict[Scope, Arm]:
    """The arms of the curves that start from a model, by the scope of their pruning."""
    having = methods_of(descent(opened.lineage, opened.path).arm)
    own = scope_for(pruning, opened.importance, task.criterion)
    scopes: tuple[Scope, ...] = (own,) if having else ("global", "family")
    criterion = criterion_for(pruning, opened.importance, task.criterion)
    usual = task.criterion or "group-l2"
    return {scope: arm_of(opened.lineage, criterion, scope, usual=usual) for scope in scopes}


def _point(name: str, found: Descent, arm: Arm, speedup: float, base: Row, plan: Plan, score: Score) -> Row:
    return Row(
        name=name,
        origin=found.origin,
        arm=arm,
        step="recalibrated",
        requested=speedup,
        base=base.name,
        speedup=base.macs / plan.macs_after,
        score=score,
        macs=plan.macs_after,
        params=plan.params_after,
        epochs=found.epochs,
    )
