"""Evaluated models that nobody had to train."""

from __future__ import annotations

import random

from metaprune_cli.reports.rows import Row
from metaprune_cli.tasks import Classification, Score
from metaprune_cli.workflows.arms import Arm
from metaprune_cli.workflows.lineage import Step


def row(
    origin: str,
    arm: Arm = "plain",
    step: Step = "finetuned",
    requested: float | None = 2.0,
    top1: float = 90.0,
    epochs: int = 0,
    **settings: str,
) -> Row:
    speedup = (requested or 1.0) * 1.01
    return Row(
        name=f"{origin}.{arm}.{step}-{requested}",
        origin=origin,
        arm=arm,
        step=step,
        requested=requested,
        base=origin,
        speedup=speedup,
        score=Score(Classification.metrics, {"top1": top1, "top5": 99.0}, loss=0.3, samples=540),
        macs=int(1e6 / speedup),
        params=int(1e5 / speedup),
        file_bytes=100_000,
        latency_ms=2.0 / speedup,
        latency_p10_ms=1.9 / speedup,
        latency_p90_ms=2.2 / speedup,
        latency_speedup=speedup,
        epochs=epochs,
        settings=settings,
    )


def three_arms() -> list[Row]:
    """Three origins, three arms, three speed-ups, two steps, and the unpruned models."""
    chance = random.Random(0)
    found = [row(f"net-{seed}", step="unpruned", requested=None, top1=98 + chance.random()) for seed in range(3)]
    for seed in range(3):
        for requested in (2.0, 4.0, 8.0):
            for arm, gain in (("plain", 0.0), ("uniform", 0.4), ("metanet", 0.6)):
                for step, loss in (("recalibrated", 6.0), ("finetuned", 1.0)):
                    top1 = 98 - loss * requested**0.8 + gain + chance.random()
                    found.append(row(f"net-{seed}", arm, step, requested, top1))
    return found
