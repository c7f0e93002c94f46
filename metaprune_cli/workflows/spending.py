"""What a model took to make, in multiply-adds, as its lineage has it: training it, and asking widths of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaprune_cli.methods.registry import method_of_step
from metaprune_cli.workflows.arms import is_removal
from metaprune_cli.workflows.loading import Lineage

PASSES = 3
"""Forward passes that a training step costs, about: forwards, and backwards to inputs and to weights."""
TRIED = "tried_macs"
"""Of a lineage's step: what asking candidates on images has cost, for one model and one target."""
TRAINING = "training_macs"
"""Of the figures of what a method has learnt: what that has cost."""
LEARNT = "learnt_macs"
"""Of a lineage's step: what the method had learnt by then has cost, once for all models."""


def spent(lineage: Lineage, whole: int, left: int, images: int) -> int:
    """What was spent on this model alone since its base was trained.

    Up to the last removal epochs are those of the whole model (what a method removes while it trains is masked, not
    gone), then of what is left. Passes without training are counted where a search asked candidates; repairs are not.

    Args:
        lineage: of the model.
        whole: MACs of its base.
        left: MACs of the model.
        images: of an epoch.
    """
    last = max((place for place, step in enumerate(lineage) if is_removal(step) or _trains(step)), default=-1)
    trained = [0, 0]
    for place, step in enumerate(lineage):
        if step["command"] == "finetune" or _trains(step):
            trained[place > last] += int(step.get("epochs", 0))
    asked = sum(int(step.get(TRIED, 0)) for step in lineage)
    return PASSES * images * (trained[0] * whole + trained[1] * left) + asked


def learnt(lineage: Lineage) -> int | None:
    """What the methods that had a part in a model have learnt before, once for all models; None: nobody says."""
    said = [int(step[LEARNT]) for step in lineage if step.get(LEARNT)]
    return sum(said) if said else None


def _trains(step: Mapping[str, Any]) -> bool:
    method = method_of_step(step)
    return method is not None and method.removes
