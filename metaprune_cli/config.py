"""One validated, frozen settings class per section of params.yaml; every default of the tool lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from metaprune_cli.config_loader import Range, did_you_mean, merged, parse, read_params
from metaprune_cli.errors import InputError

Settings = TypeVar("Settings")

Natural = Annotated[int, Range(at_least=0)]
Count = Annotated[int, Range(at_least=1)]
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
Criterion = Literal["group-l1", "group-l2", "bn-scale", "taylor", "metanet", "random"]
Ranking = Literal["auto", Criterion]
Scope = Literal["global", "family"]
Objective = Literal["pruned", "sparsity"]
Codec = Literal["coordinate", "per-kernel"]
Backend = Literal["blocks", "edges"]
ExportFormat = Literal["safetensors", "torch-export", "onnx", "torchscript"]


@dataclass(frozen=True)
class DataSettings:
    """Section ``data``: which images, how they are split and augmented."""

    dataset: DatasetName = "digits"
    data_root: str | None = None
    image_size: Count | None = None
    split_seed: Seed = 0
    val_fraction: Fraction = 0.15
    train_limit: Count | None = None
    augment: Augmentation = "none"
    batch_size: Count = 64
    workers: Natural = 0


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
    mixed_precision: bool = True
    sync_batchnorm: bool = False  # with --ddp: BatchNorm takes its statistics over all processes' images
    recalibrate: bool = False
    sparsity: NonNegative = 0.0  # sparse learning: how hard unimportant units are pulled to zero (DepGraph: 5e-4)
    sparsity_alpha: Annotated[float, Range(above=1)] = 4.0  # the least important unit is pulled so many times harder


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

    layers: Count = 4
    hidden: Count = 16
    codec: Codec = "coordinate"
    scale_blocks: bool = True
    ratio: Positive = 0.1


@dataclass(frozen=True)
class MetaTrainSettings:
    """Section ``meta-train``: objective, optimiser and length of the meta-training.

    The criterion ``metanet`` gives the metanetwork a score head, which learns which units to keep.
    """

    epochs: Natural = 40
    objective: Objective = "pruned"
    criterion: Criterion = "metanet"
    scope: Scope = "global"
    max_ratio: Fraction = 0.95
    speedup_min: Speedup = 1.5
    speedup_max: Speedup = 8.0
    dense_weight: NonNegative = 1.0
    choice_slope: NonNegative = 0.3  # how strongly the scores feel which units should have been kept; 0: not at all
    fixed_cost: bool = True  # the scores feel what a choice is worth at equal MACs, not as if it were free
    distill: NonNegative = 0.0  # weight of staying close to the original model's outputs
    lookahead: Natural = 0  # SGD steps of finetuning between masking and the loss
    lookahead_lr: Positive = 0.05
    reg: NonNegative = 10.0
    alpha: Annotated[float, Range(above=1)] = 16.0
    lr: Positive = 2e-3
    schedule: ScheduleName = "cosine"
    milestones: tuple[Count, ...] = ()
    gamma: Positive = 0.1
    warmup_epochs: Natural = 0
    weight_decay: NonNegative = 5e-4
    clip: Positive = 1.0
    members_per_step: Count = 1  # models of the zoo whose mean gradient is one step; several processes share them out
    batches: Count = 1
    batch_size: Count = 128
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


@dataclass(frozen=True)
class TransformSettings:
    """Section ``transform``: whether BatchNorm statistics are measured anew on ``batches`` training batches."""

    recalibrate: bool = True
    batches: Count = 16


@dataclass(frozen=True)
class PruneSettings:
    """Section ``prune``: how much to remove, ranked how.

    The criterion ``auto`` is ``metanet`` for models whose units a metanetwork has scored, else ``group-l2``.
    """

    speedup: tuple[Speedup, ...] = (2.0,)
    criterion: Ranking = "auto"
    scope: Scope = "global"
    max_ratio: Fraction = 0.8
    batches: Count = 4
    seed: Seed = 0


@dataclass(frozen=True)
class EvalSettings:
    """Section ``eval``: batch size, latency measurement, and the accuracy–speed-up curve's speed-ups.

    ``batches`` training batches recalibrate the BatchNorms of each model on a curve.
    """

    batch_size: Count = 256
    latency_batch: Count = 1
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
    image_size: Count | None = None
    jobs: Count = 1
    seed: Seed = 0


@dataclass(frozen=True)
class ExportSettings:
    """Section ``export``: the formats, and how closely a file that was read again has to agree with its model.

    ``inputs`` random inputs are compared at a batch of one and at a batch of ``batch``; with ``static_batch``, at that.
    """

    format: tuple[ExportFormat, ...] = ("torch-export",)
    static_batch: Count | None = None
    tolerance: Positive = 1e-4
    inputs: Count = 3
    batch: Count = 4


@dataclass(frozen=True)
class BenchSettings:
    """Section ``bench``: batch sizes, and how often each model is timed.

    A model is expected to be faster where its MACs fell at least ``claim`` times; a warning is due where less than the
    share ``arrives`` of the MACs saved is time saved.
    """

    batch: tuple[Count, ...] = (1,)
    runs: Annotated[int, Range(at_least=5)] = 30
    warmup: Count = 5
    layer_runs: Count = 5
    claim: Speedup = 1.1
    arrives: Fraction = 0.5
    seed: Seed = 0


SECTIONS = (
    *("data", "zoo", "encode", "metanet", "meta-train", "transform", "prune", "finetune", "eval", "decode"),
    *("coverage", "export", "bench"),
)


def sections(path: Path) -> dict[str, Any]:
    """The sections of a params file, by name.

    Raises:
        InputError: the file cannot be read, or a name in it looks like a misspelt section.
    """
    content = read_params(path)
    hints = {name: did_you_mean(name, SECTIONS, cutoff=0.75) for name in content if name not in SECTIONS}
    misspelt = [f"'{name}'{hint}" for name, hint in hints.items() if hint]
    if misspelt:
        raise InputError(
            "Unknown section " + "; ".join(misspelt),
            expected=", ".join(SECTIONS),
            where=path,
            next_step="rename it; names of your own are fine where they resemble no section",
        )
    return content


def load_section(
    path: Path | None, section: str, cls: type[Settings], overrides: Mapping[str, Any] | None = None
) -> Settings:
    """One section of a params file as its settings class, ``overrides`` (flags) on top.

    Args:
        path: the file; without one, or without this section in it, the defaults hold.
        section: its name in the file.
        cls: the settings class, whose annotations are the schema.
        overrides: values by key; a mapping goes into a nested section.

    Raises:
        InputError: the file cannot be read, or with every unknown key and unusable value at once.
    """
    values = (sections(path).get(section) if path else None) or {}
    if isinstance(values, Mapping):
        values = merged(values, overrides or {})
    where = " and ".join([*([str(path)] if path else []), *(["the options"] if overrides or not path else [])])
    return parse(cls, values, section=section, where=where)
