"""The metanetwork: its size, its training, and what it is used for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from metaprune_cli.config.choices import (
    Backend,
    BatchSize,
    BelowOne,
    Codec,
    Count,
    EdgePrecision,
    Fraction,
    MetaCriterion,
    Natural,
    NonNegative,
    Normaliser,
    Objective,
    OtherCriterion,
    Positive,
    Precision,
    ScheduleName,
    Seed,
    Speedup,
    ZeroScope,
)
from metaprune_cli.config.flags import DATA, SEED, TRAINING, Flag
from metaprune_cli.config_loader import Range, n_of_m
from metaprune_cli.errors import InputError


@dataclass(frozen=True)
class EncodeSettings:
    """Section ``encode``: on how many training images what they show of every unit is measured; 0: on none."""

    observe: Annotated[
        Natural,
        Flag(
            "Also store what N training images show of each unit (activations, redundancy, gradients), "
            "for metanetworks trained to read it; try 512.",
            DATA,
            "N",
        ),
    ] = 0


@dataclass(frozen=True)
class MetanetSettings:
    """Section ``metanet``: the metanetwork's size (paper: L=8, H=64 for ResNet-56)."""

    layers: Annotated[int, Range(at_least=1, at_most=256)] = 4
    hidden: Annotated[int, Range(at_least=1, at_most=4096)] = 16
    codec: Codec = "coordinate"
    scale_blocks: bool = True
    ratio: Positive = 0.1
    edge_precision: EdgePrecision = "float32"  # of the edges' states; bfloat16 is for GPUs
    evidence: bool = False  # reads what images show of units, of graphs that have it (`encode --observe`)


@dataclass(frozen=True)
class MetaTrainSettings:
    """Section ``meta-train``: objective, optimiser and length of the meta-training.

    The criterion ``metanet`` gives the metanetwork a score head, which learns which units to keep. The objectives
    ``unstructured`` and ``l1`` count weights: a speed-up of x leaves 1/x of them. ``reg`` is the weight of the
    objectives ``sparsity`` and ``l1``; for ``l1`` the paper has 0.1, beside a sum over some hundred batches.
    """

    epochs: Annotated[Natural, Flag("Passes over all graphs.", TRAINING, "N")] = 40
    objective: Annotated[Objective, Flag("The training objective.", TRAINING)] = "pruned"
    criterion: MetaCriterion = "metanet"
    criteria: tuple[OtherCriterion, ...] = ()  # beside it; every batch draws one of all to prune by
    normaliser: Normaliser = "max"
    by_speedup: bool = False  # the score head also learns how importance changes with the speed-up
    scope: ZeroScope = "global"
    max_ratio: Fraction = 0.95
    speedup_min: Speedup = 1.5
    speedup_max: Speedup = 8.0
    dense_weight: NonNegative = 1.0
    choice_slope: NonNegative = 0.3  # how strongly the scores feel which units should have been kept; 0: not at all
    fixed_cost: bool = True  # the scores feel what a choice is worth at equal MACs, not as if it were free
    imitate: NonNegative = 1.0  # weight of the examples given as `--shares`, where there are any
    weight_noise: NonNegative = 0.0  # objective shares: every weight is read times 1 + this · a normal number
    hide_evidence: BelowOne = 0.25  # how often what images show is hidden from a metanetwork that reads it
    distill: NonNegative = 0.0  # weight of staying close to the original model's outputs
    repair: bool = False  # the masked model is repaired by least squares before the loss, as `prune.repair` would
    lookahead: Natural = 0  # SGD steps of finetuning between masking and the loss
    lookahead_lr: Positive = 0.05
    pattern: str = "2:4"  # of the objective n:m; in YAML in quotes, where 2:4 is the number 124
    reg: NonNegative = 10.0
    alpha: Annotated[float, Range(above=1)] = 16.0
    lr: Annotated[Positive, Flag("Peak learning rate.", TRAINING, "X")] = 2e-3
    schedule: ScheduleName = "cosine"
    milestones: tuple[Count, ...] = ()
    gamma: Positive = 0.1
    warmup_epochs: Natural = 0
    weight_decay: NonNegative = 5e-4
    clip: Positive = 1.0
    precision: Precision = "auto"  # of the images' passes; auto: bfloat16 on CUDA devices that have it, else float32
    # models of the zoo whose mean gradient is one step; several processes share them out
    members_per_step: Annotated[
        Count, Flag("Graphs per training step; several processes divide them among themselves.", TRAINING, "N")
    ] = 1
    batches: Count = 1
    batch_size: Annotated[BatchSize, Flag("Images per model in one training step.", TRAINING, "N")] = 128
    validate_every: Count = 5
    seed: Annotated[Seed, SEED] = 0
    backend: Backend = "blocks"

    @property
    def peak_lr(self) -> float:
        """The learning rate; one is always said."""
        return self.lr

    def __post_init__(self) -> None:
        if self.speedup_min > self.speedup_max:
            raise InputError(
                "The range of speed-ups is empty.",
                expected="speedup_min not above speedup_max",
                got=f"{self.speedup_min:g} and {self.speedup_max:g}",
                where="meta-train",
            )
        n_of_m(self.pattern, where="meta-train.pattern")
        if self.weight_noise and self.objective != "shares":
            raise InputError(
                "Weights are only read with noise where nothing but shares is learnt.",
                expected="0",
                got=self.weight_noise,
                where="meta-train.weight_noise",
                next_step="leave it out, or use the objective shares",
            )
        if self.lookahead and self.objective in ("unstructured", "n:m", "l1"):
            raise InputError(
                "Lookahead steps of finetuning only work with structured pruning.",
                expected="0",
                got=self.lookahead,
                where="meta-train.lookahead",
                next_step="leave it out, or use the objective pruned",
            )


@dataclass(frozen=True)
class TransformSettings:
    """Section ``transform``: whether BatchNorm statistics are measured anew on ``batches`` training batches."""

    recalibrate: Annotated[
        bool,
        Flag(
            "Re-estimate BatchNorm statistics on training images.",
            DATA,
            names=("--recalibrate/--no-recalibrate",),
            default="yes, if a data set is given",
        ),
    ] = True
    batches: Count = 16
