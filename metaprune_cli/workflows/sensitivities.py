"""How much each family can lose, measured: what its removal alone does to a model's outputs on training images."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune_cli.config import Quantity, Scope
from metaprune_cli.data.batch import size_of
from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.metrics.calling import call, evaluating
from metaprune_cli.pruning.criteria import USUAL
from metaprune_cli.pruning.masking import masked_copy
from metaprune_cli.pruning.repair import LEAST_ROWS, Original, outputs_without
from metaprune_cli.pruning.sensitivity import added_harm, free_units, in_order, numbers_to_try, without
from metaprune_cli.pruning.targets import Target, counted
from metaprune_cli.tasks import Task
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.workflows.device import SMALL_PASS, threads_for
from metaprune_cli.workflows.pruning import PruningRun

RATIOS = (0.25, 0.5, 0.75, 1.0)
"""Fractions of the units of a family that may go, at which it is tried."""

AFFORDABLE = 10e12
"""Multiply-adds of measuring, up to which it is done where nobody asks: minutes of a CPU core."""

Harms = Mapping[int, Mapping[int, float]]
"""By family, and by how many of its units are taken away: the distance of the outputs from the whole model's."""


def scores_in(scope: Scope, run: PruningRun, goal: Target, progress: Progress | None = None) -> Float[Tensor, " units"]:
    """Scores by which units are ranked to a target; what each family can lose is measured once for a run.

    Args:
        scope: how units of different families compare.
        run: the model.
        goal: the target.
        progress: is told where something is measured.

    Raises:
        InputError: scope sensitivity, and there are no images.
    """
    if scope != "sensitivity":
        return run.scores(goal.factor or USUAL)
    if not run.harms:
        run.harms.update(measured(run, progress))
    return compared(run, run.harms, goal.quantity)


@torch.no_grad()
def measured(run: PruningRun, progress: Progress | None = None) -> Harms:
    """Try every family by itself: its lowest units set to zero, the layers repaired by least squares.

    The distance is what the task trains students by (``Task.match``): for classification the Kullback-Leibler
    divergence.

    Args:
        run: the model, with its images.
        progress: is told about each pass.

    Raises:
        InputError: there are no images, or the task does not say how far outputs are from others.
        NumericsError: an activation is not finite; names the layer.
    """
    progress, images, inputs = progress or Silence(), run.images, run.images.shown
    units, scores, most = run.graph.units, run.scores(), run.limits.most.tolist()
    families = units.families
    may_go = (min(may, len(free_units(units, own, scores))) for may, own in zip(most, families, strict=True))
    todo = {number: numbers_to_try(may, RATIOS) for number, may in enumerate(may_go) if may}
    found: dict[int, dict[int, float]] = {number: {} for number in todo}
    progress.begin("sensitivity", sum(map(len, todo.values())))
    with threads_for(run.graph.macs * size_of(inputs), SMALL_PASS):
        original = Original.of(run.whole, inputs, run.settings.seed, usual_rows=LEAST_ROWS)
        with evaluating(run.whole):
            taught = call(run.whole, inputs)
        for number, counts in todo.items():
            for count in counts:
                kept = without(units, families[number], scores, count)
                outputs = outputs_without(masked_copy(run.whole, run.graph, kept), run.graph, kept, inputs, original)
                harm = float(images.task.match(outputs, taught))
                if not math.isfinite(harm):
                    raise NumericsError(
                        "The model's outputs are not finite without some of its channels.",
                        where=families[number].name,
                        next_step="exclude the layer (--ignore), or use --scope global",
                    )
                found[number][count] = max(harm, 0.0)
                progress.step()
    progress.end()
    return found


def worth_measuring(model: nn.Module, example: ExampleInputs, macs: int, images: int, task: Task) -> bool:
    """Whether it is done where nobody asks: it takes minutes, and the task says how far outputs are from others.

    Args:
        model: the model.
        example: one input, batch size 1.
        macs: of one pass over it.
        images: that the model is repaired with; each layer takes some passes over them.
        task: what the model is for.
    """
    layers = sum(parameter.dim() > 1 for parameter in model.parameters())
    if len(RATIOS) * layers * images * macs > AFFORDABLE:
        return False
    with torch.no_grad(), evaluating(model):
        outputs = call(model, example)
    try:
        return math.isfinite(task.match(outputs, outputs))
    except Exception:  # noqa: BLE001 - of a user's own task
        return False


def is_worth_measuring(run: PruningRun) -> bool:
    """The same of a run."""
    return worth_measuring(run.model, run.example, run.graph.macs, run.settings.repair_images, run.images.task)


def compared(run: PruningRun, harms: Harms, quantity: Quantity = "macs") -> Float[Tensor, " units"]:
    """Scores by which units of all families compare: the harm that each further one does, for what it saves.

    Args:
        run: the model.
        harms: as measured.
        quantity: that is to be saved; MACs instead of what cannot be counted.
    """
    graph = run.graph
    measure = counted(graph, quantity) or counted(graph, "macs")
    assert measure is not None
    units, scores = graph.units, run.scores()
    whole, added = measure(torch.ones_like(units.prunable)), {}
    for number, tried in harms.items():
        family, most = units.families[number], max(tried)
        saved = max(whole - measure(without(units, family, scores, most)), 1e-9) / most
        added[number] = added_harm(tried, len(free_units(units, family, scores))) * (whole / saved)
    return in_order(scores, units, added)
