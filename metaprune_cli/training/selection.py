"""Which epoch's metanetwork is the best: the one whose held-out models lose least when they are masked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.config import MetaTrainSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.errors import TargetError
from metaprune_cli.metanet import MetaNetwork
from metaprune_cli.pruning import select
from metaprune_cli.pruning.zeroing import divided, find_layers
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.numerics import not_finite
from metaprune_cli.training.objectives import Task, removes_units, smaller, speedup_at, zeroing
from metaprune_cli.training.state import Record
from metaprune_cli.training.zoo import Member, Weights

POSITIONS = tuple((2 * part + 1) / 12 for part in range(6))
"""Where the speed-ups lie: in the middles of the sixths of the range."""


def check_reachable(member: Member, settings: MetaTrainSettings) -> None:
    """Make sure before any training that the largest speed-up can be drawn, or that there is something to zero.

    Raises:
        TargetError: the model cannot be pruned that far, or in that pattern.
    """
    try:
        if not removes_units(settings):
            divided(find_layers(member.graph), zeroing(settings, 0.5))
            return
        scores = torch.ones(member.graph.units.num_units)
        select(member.graph, scores, settings.speedup_max, settings.scope, settings.max_ratio)
    except TargetError as error:
        raise TargetError(
            error.what,
            expected=error.details["expected"],
            got=error.details["got"],
            where=f"meta-train.{'speedup_max' if removes_units(settings) else 'pattern'}, {member.name}",
            next_step="lower it, or leave this model out" if removes_units(settings) else "leave this model out",
        ) from error


def validate(
    metanet: MetaNetwork, tasks: Sequence[Task], val: ImageSplit, device: torch.device, ranks: Ranks = ALONE
) -> Record:
    """Mean figures over the tasks' models on the validation images.

    Args:
        metanet: the metanetwork.
        tasks: held-out models; their batches, of the training split, are for the ``lookahead`` alone.
        val: the validation images.
        device: where the models are.
        ranks: share the tasks out among themselves; each gets the means over all.

    Returns:
        ``val_loss`` and ``val_top1`` (percent), masked at six speed-ups out of the range that is trained for;
        ``val_dense_loss`` and ``val_dense_top1``, nothing masked.

    Raises:
        NumericsError: a loss is not finite.
    """

    def figures(task: Task) -> list[Tensor]:
        """Of one model: nothing masked, then at every position."""
        with torch.no_grad():
            made = metanet.rewrite(task.member.graph, backend=task.settings.backend)
        written, task = task.member.rewritten(made.tensors), replace(task, importance=made.importance)
        masked = (smaller(task, written, speedup_at(task.settings, position)) for position in POSITIONS)
        return [_figures(task, weights, val, device) for weights in itertools.chain([written], masked)]

    rows = ranks.collect([figures(task) for task in ranks.share(tasks)])
    dense, masked = [row[0] for row in rows], [figure for row in rows for figure in row[1:]]
    (val_loss, val_top1), (dense_loss, dense_top1) = (torch.stack(rows).mean(0).tolist() for rows in (masked, dense))
    return {"val_loss": val_loss, "val_top1": val_top1, "val_dense_loss": dense_loss, "val_dense_top1": dense_top1}


@torch.no_grad()
def _figures(task: Task, weights: Weights, val: ImageSplit, device: torch.device) -> Tensor:
    """Mean cross-entropy and top-1 accuracy in percent, float64 (2,)."""
    sums = torch.zeros(2, dtype=torch.float64)
    for images, labels in val.batches(task.settings.batch_size, device=device):
        logits = task.member.logits(weights, images)
        hits = (logits.argmax(1) == labels).sum()
        sums += torch.stack([F.cross_entropy(logits, labels, reduction="sum"), 100 * hits]).double().cpu()
    if not sums.isfinite().all():
        named = ((f"{task.member.name}: {name}", weight) for name, weight in weights.items())
        raise not_finite("The validation loss is not finite.", named, next_step="try a smaller learning rate or ratio")
    return sums / len(val)
