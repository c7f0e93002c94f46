"""How models are trained, and which for the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated

from metaprune_cli.config.choices import (
    ArchName,
    BelowOne,
    Count,
    Natural,
    NonNegative,
    OptimizerName,
    Positive,
    Precision,
    ScheduleName,
    Seed,
    StopOn,
)
from metaprune_cli.config.flags import SEED, TECHNIQUES, TRAINING, Flag
from metaprune_cli.config_loader import Range

USUAL_LR: Mapping[OptimizerName, float] = MappingProxyType({"sgd": 0.1, "adamw": 1e-3})
"""Of models as they are."""
LR_AFTER_PRUNING = Range(at_least=0.005, at_most=0.02)
"""Of pruned ones by SGD: what is left is close to a minimum, which 0.1 would leave again."""
LR_PER_STEP = 5e-5
"""Times the number of steps, within that range: the more there are, the farther they may go (docs/finetuning.md)."""


@dataclass(frozen=True)
class OptimSettings:
    """How one model is trained: shared by the sections ``zoo`` and ``finetune``.

    The learning rate None is 0.1 with SGD and 0.001 with AdamW; with SGD, that of a model that was pruned is 0.005 to
    0.02 (docs/finetuning.md).
    """

    epochs: Annotated[Natural, Flag("Training epochs.", TRAINING, "N")] = 10
    optimizer: Annotated[OptimizerName, Flag("The optimiser.", TRAINING)] = "sgd"
    lr: Annotated[
        Positive | None,
        Flag(
            "Peak learning rate.",
            TRAINING,
            "X",
            default=f"{USUAL_LR['sgd']:g}, or {USUAL_LR['adamw']:g} for adamw; for pruned models "
            f"{LR_AFTER_PRUNING.at_least:g} to {LR_AFTER_PRUNING.at_most:g}, the longer the training the higher",
        ),
    ] = None
    momentum: BelowOne = 0.9
    weight_decay: NonNegative = 5e-4
    schedule: Annotated[ScheduleName, Flag("How the learning rate decays.", TRAINING)] = "cosine"
    milestones: tuple[Count, ...] = ()
    gamma: Positive = 0.1
    warmup_epochs: Natural = 0
    label_smoothing: BelowOne = 0.0
    precision: Annotated[
        Precision, Flag("Precision of training; auto: bfloat16 on CUDA devices that support it.", TRAINING)
    ] = "auto"
    compile: Annotated[bool, Flag("Use torch.compile for training.", TRAINING, names=("--compile/--no-compile",))] = (
        False
    )
    sync_batchnorm: bool = False  # with --ddp: BatchNorm takes its statistics over all processes' images
    recalibrate: Annotated[
        bool, Flag("Re-estimate BatchNorm statistics at the end.", TRAINING, names=("--recalibrate/--no-recalibrate",))
    ] = False
    sparsity: Annotated[
        NonNegative, Flag("Sparse learning: pull unimportant units towards zero (try 5e-4).", TECHNIQUES, "X")
    ] = 0.0
    sparsity_alpha: Annotated[float, Range(above=1)] = 4.0  # the least important unit is pulled so many times harder
    # two images in one, their shares from Beta(mixup, mixup); 0: not
    mixup: Annotated[NonNegative, Flag("Mixup, with shares from Beta(X, X) (try 0.2).", TECHNIQUES, "X")] = 0.0
    # a rectangle of another image, its share from Beta(cutmix, cutmix); 0: not
    cutmix: Annotated[NonNegative, Flag("CutMix, with shares from Beta(X, X) (try 1).", TECHNIQUES, "X")] = 0.0
    clip: Annotated[NonNegative, Flag("Clip the gradient norm to X (try 1); 0: do not clip.", TECHNIQUES, "X")] = 0.0
    # decay, by the step, of the average of the weights that is evaluated and kept; 0: no average
    ema: Annotated[
        BelowOne,
        Flag("Use an exponential moving average of the weights with decay X (try 0.999); 0: off.", TECHNIQUES, "X"),
    ] = 0.0
    patience: Annotated[
        Natural,
        Flag("Stop after N epochs without improvement and keep the best epoch; 0: keep the last.", TECHNIQUES, "N"),
    ] = 0
    stop_on: StopOn = "loss"  # what is better, on the validation images
    distill_weight: Annotated[float, Range(at_least=0, at_most=1)] = 0.5  # of a teacher; the labels have the rest
    distill_temperature: Positive = 4.0

    @property
    def peak_lr(self) -> float:
        """The learning rate, the optimiser's usual one where none is said."""
        return USUAL_LR[self.optimizer] if self.lr is None else self.lr

    def for_model(self, *, pruned: bool, steps_per_epoch: int = 0) -> OptimSettings:
        """The same with a learning rate: where none was said, what suits the model and so many steps."""
        if self.lr is not None or not pruned or self.optimizer != "sgd":
            return replace(self, lr=self.peak_lr)
        wanted, limits = LR_PER_STEP * self.epochs * steps_per_epoch, LR_AFTER_PRUNING
        return replace(self, lr=min(max(wanted, limits.at_least), limits.at_most))


@dataclass(frozen=True)
class ZooMember:
    """``count`` models of one architecture in the zoo; ``heldout`` further ones are kept out of meta-training."""

    arch: ArchName = "cifar:resnet8"
    arch_args: dict[str, bool | int | float | str] = field(default_factory=dict)
    count: Natural = 4
    heldout: Natural = 1


@dataclass(frozen=True)
class ZooSettings:
    """Section ``zoo``: the models trained for meta-training, and those held out of it."""

    members: tuple[ZooMember, ...] = (ZooMember(),)
    validation: Annotated[
        Natural, Flag("How many of the models are used to choose the metanetwork's best epoch.", TRAINING, "N")
    ] = 1
    seed: Annotated[Seed, SEED] = 0
    train: OptimSettings = field(default_factory=OptimSettings)
