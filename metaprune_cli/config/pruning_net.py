"""A PruningNet: what generates the weights, which widths it sees, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from metaprune_cli.config.choices import (
    BelowOne,
    Count,
    EncodingName,
    GeneratorName,
    Natural,
    NonNegative,
    OptimizerName,
    Positive,
    Precision,
    SamplingName,
    ScheduleName,
    Seed,
    Speedup,
    Start,
)
from metaprune_cli.config.flags import SEED, TRAINING, WHAT_GOES, Flag
from metaprune_cli.config.training import OptimSettings
from metaprune_cli.config_loader import Range


@dataclass(frozen=True)
class PruningNetSettings:
    """Section ``pruning-net``: one network that gives a model's weights for any widths (arXiv 1903.10258).

    Published: from scratch, the full generator, its own widths, uniform sampling, and 64 epochs of ImageNet. Widths
    are those that section ``prune`` allows.
    """

    start: Annotated[Start, Flag("Start from the model's weights, or from random ones.", TRAINING)] = "trained"
    generator: Annotated[
        GeneratorName,
        Flag(
            "How weights depend on widths: 32 directions in full, factored, or not at all "
            "(shared); auto: full up to 256 MiB, then factored.",
            TRAINING,
        ),
    ] = "auto"
    hidden: Annotated[int, Range(at_least=1, at_most=4096)] = 32  # directions
    encoding: Annotated[
        EncodingName,
        Flag("What a layer's weights depend on: its own widths, its neighbours' too, or all widths.", TRAINING),
    ] = "own"
    sampling: Annotated[
        SamplingName,
        Flag(
            "Draw widths that meet a random speed-up (budget), or each layer's width independently (uniform).", TRAINING
        ),
    ] = "budget"
    speedup_max: Annotated[Speedup, Flag("Largest speed-up to draw.", WHAT_GOES, "X")] = 8.0
    # the whole network, the smallest and two random ones in every step, all of which learn from the first
    sandwich: Annotated[bool, Flag("Train the full, the smallest and random networks in each step.", TRAINING)] = False
    epochs: Annotated[Count, Flag("Training epochs.", TRAINING, "N")] = 20
    optimizer: OptimizerName = "sgd"
    lr: Annotated[Positive, Flag("Peak learning rate.", TRAINING, "X")] = 0.05
    momentum: BelowOne = 0.9
    weight_decay: NonNegative = 4e-5
    schedule: ScheduleName = "cosine"
    warmup_epochs: Natural = 0
    label_smoothing: BelowOne = 0.0
    clip: NonNegative = 5.0  # the largest norm of a gradient; 0: any. Small networks' gradients are large
    precision: Precision = "auto"
    seed: Annotated[Seed, SEED] = 0

    @property
    def training(self) -> OptimSettings:
        """How its parameters are trained."""
        own = {field.name for field in fields(self)} & {field.name for field in fields(OptimSettings)}
        return OptimSettings(**{name: getattr(self, name) for name in own})
