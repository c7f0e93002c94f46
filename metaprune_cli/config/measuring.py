"""How models are measured, exported and tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from metaprune_cli.config.choices import BatchSize, Count, ExportFormat, Fraction, Pixels, Positive, Seed, Speedup
from metaprune_cli.config.flags import CURVE, MEASURING, MODELS, OUTPUT, RUN, SEED, WHAT_GOES, Flag
from metaprune_cli.config_loader import Range


@dataclass(frozen=True)
class EvalSettings:
    """Section ``eval``: batch size, latency measurement, and the accuracy–speed-up curve's speed-ups.

    ``batches`` training batches recalibrate the BatchNorms of each model on a curve. Every method's arm is compared
    with every baseline, and all others with each arm of ``against``.
    """

    against: Annotated[
        tuple[str, ...],
        Flag(
            "Also compare all other arms with this one; may be repeated.",
            MEASURING,
            "ARM",
            default="each method's arm with each baseline",
        ),
    ] = ()
    batch_size: Annotated[BatchSize, Flag("Batch size for evaluation.", MEASURING, "N")] = 256
    latency_batch: Annotated[BatchSize, Flag("Batch size for measuring latency.", MEASURING, "N")] = 1
    latency_runs: Annotated[Count, Flag("Number of timed forward passes per model.", MEASURING, "N")] = 30
    curve: Annotated[
        tuple[Speedup, ...], Flag("Speed-up to include in the curve; may be repeated.", CURVE, "X", ("--speedup", "-s"))
    ] = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    batches: Count = 16
    seed: Annotated[Seed, SEED] = 0


@dataclass(frozen=True)
class CoverageSettings:
    """Section ``coverage``: how far every model is pruned, and what one of them may cost.

    ``max_ratio`` is high, as the question is what can be removed, not what should be. ``timeout_s`` and ``memory_gb``
    are for one model. With ``image_size``, models that take one image get a square one of that size, if they take it.
    """

    speedup: Annotated[
        tuple[Speedup, ...], Flag("MACs before / MACs after; may be repeated.", WHAT_GOES, "X", ("--speedup", "-s"))
    ] = (1.5, 2.5)
    max_ratio: Annotated[
        Fraction, Flag("Largest share of a layer's channels (or heads) that may be removed.", WHAT_GOES, "R")
    ] = 0.95
    timeout_s: Annotated[Positive, Flag("Time limit per model.", RUN, "SECONDS", ("--timeout",))] = 3600.0
    memory_gb: Annotated[Positive, Flag("Memory limit per model.", RUN, "GB", ("--memory",))] = 20.0
    image_size: Annotated[
        Pixels | None,
        Flag("Use smaller images, for speed, for models that accept them.", MODELS, "N", default="their own size"),
    ] = None
    jobs: Annotated[
        Annotated[int, Range(at_least=1, at_most=1024)], Flag("Models tried in parallel.", RUN, "N", ("--jobs", "-j"))
    ] = 1
    seed: Annotated[Seed, SEED] = 0


@dataclass(frozen=True)
class ExportSettings:
    """Section ``export``: the formats, and how closely a file that was read again has to agree with its model.

    ``inputs`` random inputs are compared at a batch of one and at a batch of ``batch``; with ``static_batch``, at that.
    """

    format: Annotated[
        tuple[ExportFormat, ...],
        Flag(
            "Export format; may be repeated. torchscript is deprecated in PyTorch: prefer torch-export.",
            OUTPUT,
            "safetensors|torch-export|onnx|torchscript|huggingface",
            ("--format", "-f"),
            kind=list[str],
        ),
    ] = ("torch-export",)
    static_batch: Annotated[
        BatchSize | None, Flag("Export for a fixed batch size of N.", OUTPUT, "N", default="any batch size")
    ] = None
    tolerance: Annotated[
        Positive, Flag("Largest relative error allowed in the outputs of the exported file.", OUTPUT, "E")
    ] = 1e-4
    inputs: Count = 3
    batch: BatchSize = 4


@dataclass(frozen=True)
class BenchSettings:
    """Section ``bench``: batch sizes, and how often each model is timed.

    A model is expected to be faster where its MACs fell at least ``claim`` times; a warning is due where less than the
    share ``arrives`` of the MACs saved is time saved.
    """

    batch: Annotated[
        tuple[BatchSize, ...], Flag("Batch sizes, such as 1,8,64.", MEASURING, "N,N", ("--batch", "-b"), kind=str)
    ] = (1,)
    runs: Annotated[
        Annotated[int, Range(at_least=5)], Flag("Number of timed forward passes per model.", MEASURING, "N")
    ] = 30
    warmup: Count = 5
    layer_runs: Count = 5
    claim: Speedup = 1.1
    arrives: Fraction = 0.5
    seed: Annotated[Seed, SEED] = 0
