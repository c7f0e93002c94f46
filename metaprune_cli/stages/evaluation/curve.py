"""The accuracy–speed-up curve of a model: pruned further and further, BatchNorm recalibrated, not finetuned."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from metaprune_cli.config import PruneSettings
from metaprune_cli.errors import TargetError
from metaprune_cli.pruning.prune import prune
from metaprune_cli.stages.evaluation.bench import Bench
from metaprune_cli.stages.evaluation.lineage import descent
from metaprune_cli.stages.evaluation.summary import Row, speedup_label
from metaprune_cli.stages.loading import Opened
from metaprune_cli.stages.paths import stem
from metaprune_cli.stages.prune import loss_gradients
from metaprune_cli.training.loop import recalibrate_

log = logging.getLogger(__name__)


def curves(models: Sequence[Opened], bases: Sequence[Row], pruning: PruneSettings, bench: Bench) -> list[Row]:
    """One row for each model and speed-up that the model can reach; what it cannot reach is logged.

    Args:
        models: where the curves start.
        bases: for each model the row it is measured against.
        pruning: criterion, scope and largest ratio; its own speed-ups are not used.
        bench: how each point is measured, and the speed-ups.
    """
    bench.progress.begin("curves", len(models))
    rows: list[Row] = []
    for opened, base in zip(models, bases, strict=True):
        rows.extend(_curve(opened, base, pruning, bench))
        bench.progress.step()
    bench.progress.end()
    return rows


def _curve(opened: Opened, base: Row, pruning: PruneSettings, bench: Bench) -> Iterator[Row]:
    model, graph, found = opened.model.cpu(), opened.neuron_graph(), descent(opened.lineage, opened.path)
    train, batch_size = bench.splits.train, bench.data.batch_size
    gradients = None
    if pruning.criterion == "taylor":
        gradients = loss_gradients(model, train, pruning.batches, batch_size, bench.device)
    for speedup in bench.settings.curve:
        try:
            pruned = prune(
                model,
                opened.example(),
                speedup=speedup,
                criterion=pruning.criterion,
                scope=pruning.scope,
                max_ratio=pruning.max_ratio,
                gradients=gradients,
                seed=pruning.seed,
                graph=graph,
            )
        except TargetError as error:
            log.warning("%s: no point at %s: %s", opened.path, speedup_label(speedup), error.what)
            continue
        small = pruned.model.to(bench.device)
        recalibrate_(small, train, bench.settings.batches, batch_size=batch_size)
        accuracy = bench.accuracy(small)
        yield Row(
            name=f"{stem(opened.path)} @ {speedup_label(speedup)}",
            origin=found.origin,
            arm=found.arm,
            step="recalibrated",
            requested=speedup,
            base=base.name,
            speedup=base.macs / pruned.plan.macs_after,
            top1=accuracy.top1,
            top5=accuracy.top5,
            loss=accuracy.loss,
            samples=accuracy.samples,
            macs=pruned.plan.macs_after,
            params=pruned.plan.params_after,
        )
