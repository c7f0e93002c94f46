"""One validated, frozen settings class per section of params.yaml; every default of the tool lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from metaprune_cli.config_loader import Range, Reference, n_of_m, rows_by_columns
from metaprune_cli.errors import InputError

Natural = Annotated[int, Range(at_least=0)]
Count = Annotated[int, Range(at_least=1)]
Processes = Annotated[int, Range(at_least=0, at_most=1024)]
Pixels = Annotated[int, Range(at_least=1, at_most=2**14)]
BatchSize = Annotated[int, Range(at_least=1, at_most=2**20)]
Seed = Annotated[int, Range(at_least=0, below=2**63)]
NonNegative = Annotated[float, Range(at_least=0)]
Positive = Annotated[float, Range(above=0)]
Fraction = Annotated[float, Range(above=0, below=1)]
BelowOne = Annotated[float, Range(at_least=0, below=1)]
Speedup = Annotated[float, Range(above=1)]

DatasetName = Literal["digits", "cifar10", "cifar100", "svhn", "imagefolder"]
Augmentation = Literal["none", "crop", "crop-flip"]
OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["constant", "cosine", "multistep"]
Criterion = Literal[
    "group-l1",
    "group-l2",
    "bn-scale",
    "fpgm",
    "lamp",
    "taylor",
    "obd-c",
    "hessian",
    "activation",
    "metanet",
    "random",
]
WITH_DATA = ("taylor", "obd-c", "hessian", "activation")
"""The criteria that look at images."""
OF_METHODS = ("metanet",)
"""The criteria that are group-l2 times e to what a method says of every unit."""
OtherCriterion = Literal["group-l1", "group-l2", "bn-scale", "taylor", "random"]
MetaCriterion = Literal["metanet", OtherCriterion]
Ranking = Literal["auto", Criterion]
Reduction = Literal["mean", "sum", "max"]
Normaliser = Literal["max", "mean", "sum", "rank", "none"]
Normalising = Literal["auto", Normaliser]
Scope = Literal["global", "family"]
Quantity = Literal["macs", "params", "size", "memory", "latency", "drop"]
Repair = Literal["none", "bn", "bias", "least-squares"]
Rounds = Literal["geometric", "linear", "cubic"]
Kind = Literal["structured", "unstructured", "n:m", "block"]
Objective = Literal["pruned", "sparsity", "shares", "unstructured", "n:m", "l1"]
Codec = Literal["coordinate", "per-kernel"]
Backend = Literal["blocks", "edges"]
Precision = Literal["auto", "float32", "bfloat16"]
EdgePrecision = Literal["float32", "bfloat16"]
StopOn = Literal["loss", "headline", "accuracy"]
"""``headline``: the task's first metric; ``accuracy``, its name in classification, means the same."""
TaskName = Literal["classification"]
ExportFormat = Literal["safetensors", "torch-export", "onnx", "torchscript"]


@dataclass(frozen=True)
class DataSettings:
    """Section ``data``: which images, how they are split and augmented, and for which task.

    The task None is what the models' files say, or classification; ``package.module:task`` is a user's own.
    """

    dataset: DatasetName = "digits"
    data_root: str | None = None
    image_size: Pixels | None = None
    split_seed: Seed = 0
    val_fraction: Fraction = 0.15
    train_limit: Count | None = None
    augment: Augmentation = "none"
    batch_size: BatchSize = 64
    workers: Processes = 0
    task: TaskName | Annotated[str, Reference()] | None = None


@dataclass(frozen=True)
class OptimSettings:
    """How one model is trained: shared by the sections ``zoo`` and ``finetune``."""

    epochs: Natural = 10
    optimizer: OptimizerName = "sgd"
    lr: Positive = 0.1
    momentum: BelowOne = 0.9
    weight_decay: NonNegative = 5e-4
    schedule: ScheduleName = "cosine"
    milestones: tuple[Count, ...] = ()
    gamma: Positive = 0.1
    warmup_epochs: Natural = 0
    label_smoothing: BelowOne = 0.0
    precision: Precision = "auto"  # of the training steps; auto: bfloat16 on CUDA devices that have it, else float32
    compile: bool = False  # torch.compile
    sync_batchnorm: bool = False  # with --ddp: BatchNorm takes its statistics over all processes' images
    recalibrate: bool = False
    sparsity: NonNegative = 0.0  # sparse learning: how hard unimportant units are pulled to zero (DepGraph: 5e-4)
    sparsity_alpha: Annotated[float, Range(above=1)] = 4.0  # the least important unit is pulled so many times harder
    mixup: NonNegative = 0.0  # two images in one, their shares from Beta(mixup, mixup); 0: not
    cutmix: NonNegative = 0.0  # a rectangle of another image, its share from Beta(cutmix, cutmix); 0: not
    clip: NonNegative = 0.0  # the gradient's norm is at most this; 0: any
    ema: BelowOne = 0.0  # decay, by the step, of the average of the weights that is evaluated and kept; 0: no average
    patience: Natural = 0  # stop after so many epochs without a better one, and keep the best; 0: keep the last
    stop_on: StopOn = "loss"  # what is better, on the validation images
    distill_weight: Annotated[float, Range(at_least=0, at_most=1)] = 0.5  # of a teacher; the labels have the rest
    distill_temperature: Positive = 4.0


@dataclass(frozen=True)
class ZooMember:
    """``count`` models of one architecture in the zoo; ``heldout`` further ones are kept out of meta-training."""

    arch: str = "cifar:resnet8"
    arch_args: dict[str, bool | int | float | str] = field(default_factory=dict)
    count: Natural = 4
    heldout: Natural = 1


@dataclass(frozen=True)
class ZooSettings:
    """Section ``zoo``: the models trained for meta-training, and those held out of it."""

    members: tuple[ZooMember, ...] = (ZooMember(),)
    validation: Natural = 1
    seed: Seed = 0
    train: OptimSettings = field(default_factory=OptimSettings)


@dataclass(frozen=True)
class MetanetSettings:
    """Section ``metanet``: the metanetwork's size (paper: L=8, H=64 for ResNet-56)."""

    layers: Annotated[int, Range(at_least=1, at_most=256)] = 4
    hidden: Annotated[int, Range(at_least=1, at_most=4096)] = 16
    codec: Codec = "coordinate"
    scale_blocks: bool = True
    ratio: Positive = 0.1
    edge_precision: EdgePrecision = "float32"  # of the edges' states; bfloat16 is for GPUs


@dataclass(frozen=True)
class MetaTrainSettings:
    """Section ``meta-train``: objective, optimiser and length of the meta-training.

    The criterion ``metanet`` gives the metanetwork a score head, which learns which units to keep. The objectives
    ``unstructured`` and ``l1`` count weights: a speed-up of x leaves 1/x of them. ``reg`` is the weight of the
    objectives ``sparsity`` and ``l1``; for ``l1`` the paper has 0.1, beside a sum over some hundred batches.
    """

    epochs: Natural = 40
    objective: Objective = "pruned"
    criterion: MetaCriterion = "metanet"
    criteria: tuple[OtherCriterion, ...] = ()  # beside it; every batch draws one of all to prune by
    normaliser: Normaliser = "max"
    by_speedup: bool = False  # the score head also learns how importance changes with the speed-up
    scope: Scope = "global"
    max_ratio: Fraction = 0.95
    speedup_min: Speedup = 1.5
    speedup_max: Speedup = 8.0
    dense_weight: NonNegative = 1.0
    choice_slope: NonNegative = 0.3  # how strongly the scores feel which units should have been kept; 0: not at all
    fixed_cost: bool = True  # the scores feel what a choice is worth at equal MACs, not as if it were free
    imitate: NonNegative = 1.0  # weight of the examples given as `--shares`, where there are any
    distill: NonNegative = 0.0  # weight of staying close to the original model's outputs
    repair: bool = False  # the masked model is repaired by least squares before the loss, as `prune.repair` would
    lookahead: Natural = 0  # SGD steps of finetuning between masking and the loss
    lookahead_lr: Positive = 0.05
    pattern: str = "2:4"  # of the objective n:m; in YAML in quotes, where 2:4 is the number 124
    reg: NonNegative = 10.0
    alpha: Annotated[float, Range(above=1)] = 16.0
    lr: Positive = 2e-3
    schedule: ScheduleName = "cosine"
    milestones: tuple[Count, ...] = ()
    gamma: Positive = 0.1
    warmup_epochs: Natural = 0
    weight_decay: NonNegative = 5e-4
    clip: Positive = 1.0
    precision: Precision = "auto"  # of the images' passes; auto: bfloat16 on CUDA devices that have it, else float32
    members_per_step: Count = 1  # models of the zoo whose mean gradient is one step; several processes share them out
    batches: Count = 1
    batch_size: BatchSize = 128
    validate_every: Count = 5
    seed: Seed = 0
    backend: Backend = "blocks"

    def __post_init__(self) -> None:
        if self.speedup_min > self.speedup_max:
            raise InputError(
                "The range of speed-ups is empty.",
                expected="speedup_min not above speedup_max",
                got=f"{self.speedup_min:g} and {self.speedup_max:g}",
                where="meta-train",
            )
        n_of_m(self.pattern, where="meta-train.pattern")
        if self.lookahead and self.objective in ("unstructured", "n:m", "l1"):
            raise InputError(
                "Only structured pruning is looked at through steps of finetuning.",
                expected="0",
                got=self.lookahead,
                where="meta-train.lookahead",
                next_step="leave it out, or use the objective pruned",
            )


@dataclass(frozen=True)
class TransformSettings:
    """Section ``transform``: whether BatchNorm statistics are measured anew on ``batches`` training batches."""

    recalibrate: bool = True
    batches: Count = 16


@dataclass(frozen=True)
class PruningRule:
    """What may happen to some layers: one entry of ``prune.rules``.

    ``match`` is a glob over names of families, layers and parameters, or ``re:`` and a regular expression over them, or
    ``type:`` and the name of a module's class, or ``kind:heads``. What is None is left as other rules have it.
    """

    match: str
    ignore: bool = False  # nothing goes
    max_ratio: Annotated[float, Range(at_least=0, at_most=1)] | None = None  # the largest fraction that may go
    min_ratio: BelowOne | None = None  # the smallest that must
    min_units: Count | None = None  # so many stay
    round_to: Count | None = None  # where some go, what stays is a multiple of this
    tie: bool = False  # the families lose their units together, the i-th of each


@dataclass(frozen=True)
class PruneSettings:
    """Section ``prune``: how much to remove, ranked how, and what is done about it.

    The criterion ``auto`` is ``metanet`` for models whose units a metanetwork has scored, else ``group-l2``;
    ``package.module:function`` is a user's own. The normaliser ``auto`` is what that metanetwork was trained with, else
    ``max``, and ``rank`` where a search starts from it. Every kind but ``structured`` zeroes weights and keeps all
    shapes; its settings are the second half.
    """

    kind: Kind = "structured"
    speedup: tuple[Speedup, ...] = (2.0,)
    target: tuple[str, ...] = ()  # less of something else, instead: params=2x, size=10MB, latency=3ms, drop=0.5
    criterion: Ranking | Annotated[str, Reference()] = "auto"
    reduction: Reduction = "mean"
    normaliser: Normalising = "auto"
    scope: Scope = "global"
    max_ratio: Fraction = 0.8
    round_to: Count = 1
    keep_heads: bool = False
    rules: tuple[PruningRule, ...] = ()
    batches: Count = 4
    repair: Repair = "none"
    repair_images: Count = 512
    search: Natural = 0  # trials of other shares for the families, judged by what is left; 0: none
    search_images: Count = 1024
    together: bool = False  # one search for all models of a structure: what it finds is less a matter of chance
    seed: Seed = 0
    sparsity: tuple[Fraction, ...] = (0.8,)  # of unstructured and block: the fraction of weights that goes
    pattern: str = "2:4"  # of n:m; in YAML in quotes, where 2:4 is the number 124
    block: str = "4x1"  # of block: outputs x inputs
    classifier: bool = False  # whether the layers whose outputs are the model's are zeroed too
    first: bool = True  # whether the layers whose inputs are the model's are
    kernel_only: bool = False  # of 2:4: only what PyTorch's kernels take

    @property
    def needs_images(self) -> bool:
        """Whether units cannot be chosen, or what is left not repaired, without images."""
        drop = any(target.partition("=")[0].strip() == "drop" for target in self.target)
        return drop or self.criterion in WITH_DATA or self.repair != "none" or self.search > 0

    def __post_init__(self) -> None:
        n_of_m(self.pattern, where="prune.pattern")
        rows_by_columns(self.block, where="prune.block")
        if self.search and self.scope == "family":
            raise InputError(
                "Where every family loses the same share, there is nothing to search for.",
                expected="scope global, or no search",
                got=f"{self.search} trials in scope family",
                where="prune.search",
            )
        if self.together and not self.search:
            raise InputError(
                "Models are put together for a search, and there is none.",
                where="prune.together",
                next_step="--search N, or leave it out",
            )
        if self.kernel_only and n_of_m(self.pattern, where="prune.pattern") != (2, 4):
            raise InputError(
                "PyTorch has kernels for 2:4 alone.", expected="2:4", got=self.pattern, where="prune.pattern"
            )


@dataclass(frozen=True)
class IterateSettings:
    """Section ``iterate``: pruning in rounds, with training in between; ``prune`` and ``finetune`` say how.

    Every round trains for ``epochs``; after the last, ``finetune.epochs`` follow. With ``max_drop`` the rounds end
    before the headline metric on validation images is so much worse than the whole model's (points of accuracy).
    """

    rounds: Count = 4
    schedule: Rounds = "geometric"
    epochs: Count = 2
    max_drop: NonNegative | None = None


@dataclass(frozen=True)
class SensitivitySettings:
    """Section ``sensitivity``: one family at a time loses each of ``ratios``; ``images`` validation images are asked.

    ``max_drop`` is how much of the headline metric (points of accuracy) a family may cost by itself in the rules.
    """

    ratios: tuple[Fraction, ...] = (0.25, 0.5, 0.75, 0.9)
    images: Count = 2048
    max_drop: NonNegative = 1.0


@dataclass(frozen=True)
class EvalSettings:
    """Section ``eval``: batch size, latency measurement, and the accuracy–speed-up curve's speed-ups.

    ``batches`` training batches recalibrate the BatchNorms of each model on a curve. Every method's arm is compared
    with every baseline, and all others with each arm of ``against``.
    """

    against: tuple[str, ...] = ()
    batch_size: BatchSize = 256
    latency_batch: BatchSize = 1
    latency_runs: Count = 30
    curve: tuple[Speedup, ...] = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    batches: Count = 16
    seed: Seed = 0


@dataclass(frozen=True)
class CoverageSettings:
    """Section ``coverage``: how far every model is pruned, and what one of them may cost.

    ``max_ratio`` is high, as the question is what can be removed, not what should be. ``timeout_s`` and ``memory_gb``
    are for one model. With ``image_size``, models that take one image get a square one of that size, if they take it.
    """

    speedup: tuple[Speedup, ...] = (1.5, 3.0)
    max_ratio: Fraction = 0.95
    timeout_s: Positive = 3600.0
    memory_gb: Positive = 20.0
    image_size: Pixels | None = None
    jobs: Annotated[int, Range(at_least=1, at_most=1024)] = 1
    seed: Seed = 0


@dataclass(frozen=True)
class ExportSettings:
    """Section ``export``: the formats, and how closely a file that was read again has to agree with its model.

    ``inputs`` random inputs are compared at a batch of one and at a batch of ``batch``; with ``static_batch``, at that.
    """

    format: tuple[ExportFormat, ...] = ("torch-export",)
    static_batch: BatchSize | None = None
    tolerance: Positive = 1e-4
    inputs: Count = 3
    batch: BatchSize = 4


@dataclass(frozen=True)
class BenchSettings:
    """Section ``bench``: batch sizes, and how often each model is timed.

    A model is expected to be faster where its MACs fell at least ``claim`` times; a warning is due where less than the
    share ``arrives`` of the MACs saved is time saved.
    """

    batch: tuple[BatchSize, ...] = (1,)
    runs: Annotated[int, Range(at_least=5)] = 30
    warmup: Count = 5
    layer_runs: Count = 5
    claim: Speedup = 1.1
    arrives: Fraction = 0.5
    seed: Seed = 0
