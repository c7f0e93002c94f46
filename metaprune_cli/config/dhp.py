"""How a network with generated weights is trained while its latents shrink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from metaprune_cli.config.choices import Count, Natural, NonNegative, Positive
from metaprune_cli.config.flags import TRAINING, WHAT_GOES, Flag
from metaprune_cli.config_loader import Range

Start = Literal["auto", "trained", "scratch"]
Shrinking = Literal["scheduled", "threshold"]


@dataclass(frozen=True)
class DhpSettings:
    """Section ``dhp``; ``prune`` says what may go, ``finetune`` how else the training is done.

    Scheduled, the MACs fall geometrically over the first ``share`` of the epochs; threshold is as published: units are
    gone once their latents are below ``threshold``, which ``strength`` pulls them to.
    """

    epochs: Annotated[Count, Flag("Epochs of training with generated weights.", TRAINING, "N")] = 10
    start: Annotated[
        Start,
        Flag("Start from the model's weights or from random ones; auto: from the model's, if there is one.", TRAINING),
    ] = "auto"
    shrink: Annotated[
        Shrinking,
        Flag(
            "scheduled: MACs fall step by step, smallest latents first; threshold: as published, "
            "until the target is met.",
            WHAT_GOES,
        ),
    ] = "scheduled"
    embedding: Annotated[
        Natural, Flag("Size of the generator's embedding (8 in the paper); 0: compact form.", TRAINING, "N")
    ] = 0
    power: NonNegative = 0.0  # of group-l2, which trained models' latents begin with; 0: all begin with 1
    strength: Annotated[
        NonNegative, Flag("Shrink latents by X times the learning rate at every step.", WHAT_GOES, "X")
    ] = 3e-4
    threshold: Positive = 5e-3  # below it a unit is gone, with threshold
    check_every: Count = 100  # steps, with threshold
    remove_every: Count = 5  # steps, scheduled
    share: Annotated[float, Range(above=0, at_most=1)] = 0.75  # of the epochs, over which the schedule goes
