"""Which epoch's metanetwork is the best: the one whose held-out models lose least when they are masked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from metaprune_cli.config import MetaTrainSettings
from metaprune_cli.data import Split
from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.methods.metanet import MetaNetwork
from metaprune_cli.methods.metanet.learning.objectives import Step, removes_units, smaller, speedup_at, zeroing
from metaprune_cli.methods.metanet.learning.shares import imitation
from metaprune_cli.methods.metanet.learning.zoo import Member, Weights
from metaprune_cli.pruning import by_unit, select
from metaprune_cli.pruning.sparsity import divided, find_layers
from metaprune_cli.tasks.measuring import value_of
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.numerics import not_finite
from metaprune_cli.training.state import Record

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
    metanet: MetaNetwork, steps: Sequence[Step], val: Split, device: torch.device, ranks: Ranks = ALONE
) -> Record:
    """Mean figures over the steps' models on the validation images.

    Where nothing but examples is learnt, and the held-out models have some, ``val_loss`` is how far from these the
    score head is: on images that loss would be of masked models nobody has repaired, which prefers other plans.

    Args:
        metanet: the metanetwork.
        steps: held-out models; their batches, of the training split, are for the ``lookahead`` alone.
        val: the validation images.
        device: where the models are.
        ranks: share the steps out among themselves; each gets the means over all.

    Returns:
        ``val_loss`` and the task's headline (``val_accuracy``, say), masked at six speed-ups out of the range that is
        trained for; ``val_dense_loss`` and ``val_dense_accuracy``, nothing masked. By examples, ``val_loss`` alone.

    Raises:
        NumericsError: a loss is not finite.
    """
    if steps[0].settings.objective == "shares" and all(step.member.examples for step in steps):
        far = ranks.collect([_far(metanet, step) for step in ranks.share(steps)])
        return {"val_loss": float(torch.stack(far).mean())}

    def figures(step: Step) -> list[Tensor]:
        """Of one model: nothing masked, then at every position."""
        with torch.no_grad():
            made = metanet.rewrite(step.member.graph, backend=step.settings.backend)
        written, step = step.member.rewritten(made.tensors), replace(step, importance=made.importance)
        masked = (smaller(step, written, speedup_at(step.settings, position)) for position in POSITIONS)
        return [_figures(step, weights, val, device) for weights in itertools.chain([written], masked)]

    rows = ranks.collect([figures(step) for step in ranks.share(steps)])
    dense, masked = [row[0] for row in rows], [figure for row in rows for figure in row[1:]]
    (val_loss, headline), (dense_loss, dense_headline) = (
        torch.stack(rows).mean(0).tolist() for rows in (masked, dense)
    )
    key = steps[0].task.metrics[0].key
    return {
        "val_loss": val_loss,
        f"val_{key}": headline,
        "val_dense_loss": dense_loss,
        f"val_dense_{key}": dense_headline,
    }


@torch.no_grad()
def _far(metanet: MetaNetwork, step: Step) -> Tensor:
    """The score head's distance from a model's examples."""
    units, made = step.member.graph.units, metanet.rewrite(step.member.graph, backend=step.settings.backend)
    if made.importance is None:
        raise InputError("A metanetwork without a score head learns from no example.", where="meta-train.criterion")
    return imitation(units, by_unit(units, made.importance), step.member.examples).double().cpu()


@torch.no_grad()
def _figures(step: Step, weights: Weights, val: Split, device: torch.device) -> Tensor:
    """Mean loss and the headline, float64 (2,)."""
    task, meter = step.task, step.task.quick_meter()
    total = torch.zeros((), dtype=torch.float64)
    for inputs, targets in val.batches(step.settings.batch_size, device=device):
        output = step.member.output(weights, inputs)
        total += task.total_loss(output, targets).double().cpu()
        meter.update(output, targets)
    if not total.isfinite():
        named = ((f"{step.member.name}: {name}", weight) for name, weight in weights.items())
        raise not_finite("The validation loss is not finite.", named, next_step="try a smaller learning rate or ratio")
    return torch.stack([total / len(val), total.new_tensor(value_of(task.metrics[0], meter, task))])
