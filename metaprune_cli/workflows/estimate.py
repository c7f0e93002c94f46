"""What making a model smaller would take, step by step, told from a few passes of the whole model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from metaprune_cli.config import DataSettings, OptimSettings, PruneSettings
from metaprune_cli.data import Splits
from metaprune_cli.metrics.calling import call
from metaprune_cli.metrics.latency import finish
from metaprune_cli.training.loop import steps_in
from metaprune_cli.workflows.loading import Opened

FORWARD_SHARE = 3.0
"""A training step is about three forward passes."""
TRIED, LONG_ENOUGH_S = 10, 2.0
"""So many passes are timed, after one that is not, or as many as take so long."""


@dataclass(frozen=True)
class Estimate:
    """One step: its name, what it does, and about how long it takes; None where that is not known beforehand."""

    step: str
    does: str
    seconds: float | None

    def to_document(self) -> dict[str, Any]:
        """Plain values."""
        return {"step": self.step, "does": self.does, "seconds": self.seconds}


def estimated(
    opened: Opened,
    splits: Splits | None,
    data: DataSettings | None,
    training: OptimSettings,
    pruning: PruneSettings,
    *,
    device: torch.device,
    speedups: Sequence[float],
    imports: bool,
    rewrites: bool,
    teacher: bool,
    formats: Sequence[str],
    tested: bool,
) -> Iterator[Estimate]:
    """Every step in its order; what takes seconds by the clock of a few passes of the whole model.

    The smaller model is taken to be as many times faster as it has fewer MACs, up to twice: less than it usually is.
    """
    if imports:
        yield Estimate("import", "converts the model to metaprune's format", None)
    if rewrites:
        yield Estimate("transform", "rewrites the weights with the metanetwork", None)
    forward = 0.0 if splits is None or data is None else _forward_seconds(opened, splits, data, device)
    for speedup in speedups:
        repair = "" if splits is None or pruning.repair == "none" else f", repaired on {pruning.repair_images} images"
        yield Estimate(f"prune-{speedup:g}x", f"{speedup:g}x fewer multiply-adds{repair}", None)
        if splits is not None and data is not None and training.epochs:
            batches = steps_in(splits.train, data.batch_size) * training.epochs
            passes = FORWARD_SHARE / min(speedup, 2.0) + (1.0 if teacher else 0.0)
            validation = training.epochs * len(splits.val) / data.batch_size / min(speedup, 2.0)
            seconds = forward * (batches * passes + validation)
            words = f"{training.epochs} epochs of {len(splits.train)} images" + (", with a teacher" if teacher else "")
            yield Estimate(f"finetune-{speedup:g}x", words, seconds)
        yield Estimate(f"export-{speedup:g}x", ", ".join(formats), None)
    if splits is None:
        yield Estimate("bench", "measures the speed on this machine", None)
    else:
        yield Estimate(
            "eval",
            "measures accuracy on the test images, writes the report"
            if tested
            else "measures accuracy on the validation images",
            None,
        )


def _forward_seconds(opened: Opened, splits: Splits, data: DataSettings, device: torch.device) -> float:
    """Of a batch of training images, reading them included."""
    model = opened.model.to(device)
    batches = splits.train.batches(data.batch_size, device=device)
    with torch.no_grad():
        call(model, next(batches).inputs)
        start, count = time.perf_counter(), 0
        for batch in batches:
            call(model, batch.inputs)
            count += 1
            if count == TRIED or time.perf_counter() - start > LONG_ENOUGH_S:
                break
        finish(device)
    model.cpu()
    return (time.perf_counter() - start) / max(count, 1)
