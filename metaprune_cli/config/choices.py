"""What settings may be: kinds of numbers, and choices by name."""

from __future__ import annotations

from typing import Annotated, Literal

from metaprune_cli.config_loader import NameOrReference, Range

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

ARCHITECTURES = NameOrReference(("cifar", "restore", "torchvision", "timm", "hf"))
"""Names of architectures; any other prefix is a module to be imported."""
ArchName = Annotated[str, ARCHITECTURES]

DatasetName = Literal["digits", "cifar10", "cifar100", "svhn", "imagefolder", "photos", "images"]
PixelKind = Literal["gray", "rgb"]
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
ZeroScope = Literal["global", "family"]
Scope = Literal[ZeroScope, "sensitivity"]
AskedScope = Literal["auto", Scope]
Quantity = Literal["macs", "params", "size", "memory", "latency", "drop"]
Repair = Literal["none", "bn", "bias", "least-squares"]
Route = Literal["auto", "class", "program"]
Rounds = Literal["geometric", "linear", "cubic"]
ZeroKind = Literal["unstructured", "n:m", "block"]
Objective = Literal["pruned", "sparsity", "shares", "unstructured", "n:m", "l1"]
Codec = Literal["coordinate", "per-kernel"]
Backend = Literal["blocks", "edges"]
Precision = Literal["auto", "float32", "bfloat16"]
EdgePrecision = Literal["float32", "bfloat16"]
GeneratorName = Literal["auto", "full", "factored", "shared"]
EncodingName = Literal["own", "neighbours", "whole"]
SamplingName = Literal["uniform", "budget"]
Start = Literal["trained", "scratch"]
"""Of a PruningNet: with a model's weights, or with random ones."""
StopOn = Literal["loss", "headline", "accuracy"]
"""``headline``: the task's first metric; ``accuracy``, its name in classification, means the same."""
TaskName = Literal["classification", "super-resolution", "denoising"]
Logger = Literal["tensorboard", "mlflow", "wandb", "dvclive"]
ExportFormat = Literal["safetensors", "torch-export", "onnx", "torchscript", "huggingface"]
