"""How a model is made smaller in one call: what ``compress`` decides beside what its steps are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from metaprune_cli.config.choices import BatchSize, NonNegative, Repair
from metaprune_cli.config.data import DataSettings
from metaprune_cli.config.flags import MEASURING, TRAINING, WHAT_GOES, Flag

NO_METANET = "none"
REPAIR: Repair = "least-squares"
_IMAGES, _PATCHES = 1024, 64


def repair_images(data: object) -> int:
    """For the repair, which is done where there are images and nobody says otherwise.

    It is worth ten points and more to whoever does not train, and seldom costs any to whoever does
    (docs/results/repair). Of networks that keep the size of their images, one patch has thousands of positions to fit.
    """
    return _PATCHES if isinstance(data, DataSettings) and data.restores else _IMAGES


@dataclass(frozen=True)
class CompressSettings:
    """What no single step says: which method comes before the removal, how much may be lost, how speed is measured.

    On public networks of full width the built-in metanetwork is level with removal without one, or behind it, so there
    is none by default; on narrow ones it is ahead (docs/results).
    """

    metanet: Annotated[
        str, Flag("Metanetwork that rewrites the weights first: none, builtin, or a file.", WHAT_GOES, "NAME")
    ] = NO_METANET
    method: Annotated[
        str | None,
        Flag(
            "Pruning method: a name from `metaprune list methods`.",
            WHAT_GOES,
            "NAME",
            default="only the criterion, or as --metanet implies",
        ),
    ] = None
    max_drop: Annotated[
        NonNegative | None,
        Flag(
            "Take the largest speed-up that costs at most this much accuracy (or of the task's "
            "first metric) on validation images. If one speed-up is given, smaller ones are tried "
            "too.",
            WHAT_GOES,
            "POINTS",
        ),
    ] = None
    teacher: Annotated[
        bool | None,
        Flag(
            "While finetuning, also learn from the original model's outputs.",
            TRAINING,
            names=("--teacher/--no-teacher",),
            default="yes for classifiers",
        ),
    ] = None
    batch: Annotated[BatchSize, Flag("Batch size for measuring latency.", MEASURING, "N", ("--latency-batch",))] = 8
