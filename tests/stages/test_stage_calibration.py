"""Which images pruning looks at: those that judge a search have no other part in it."""

from __future__ import annotations

import torch

from metaprune_cli.config import DataSettings, PruneSettings
from metaprune_cli.stages.calibration import Calibration


def test_images_that_judge_neither_repair_nor_train() -> None:
    settings = PruneSettings(search=1, search_images=100, repair="least-squares", repair_images=50)
    calibration = Calibration(DataSettings(), settings, torch.device("cpu"))
    judging = torch.cat([images for images, _ in calibration.judged])
    others = torch.cat([images for images, _ in calibration.others.batches(256)])
    repairing = calibration.inputs
    assert repairing is not None
    assert len(judging) == 100
    assert len(judging) + len(others) == len(calibration.splits.train)
    assert not _in_common(judging, others)
    assert not _in_common(judging, repairing)


def test_on_few_images_the_same_ones_judge_and_repair() -> None:
    settings = PruneSettings(search=1, search_images=10_000, repair="bn", repair_images=50)
    calibration = Calibration(DataSettings(), settings, torch.device("cpu"))
    assert sum(len(images) for images, _ in calibration.judged) == len(calibration.splits.train)
    assert len(calibration.others) == 0


def test_where_a_search_trains_half_of_few_images_are_left_for_that() -> None:
    settings = PruneSettings(search=1, search_epochs=1, search_images=10_000, repair="bn", repair_images=50)
    calibration = Calibration(DataSettings(), settings, torch.device("cpu"))
    there = len(calibration.splits.train)
    assert sum(len(images) for images, _ in calibration.judged) == there // 2
    assert len(calibration.others) == there - there // 2


def _in_common(some: torch.Tensor, others: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in some} & {image.numpy().tobytes() for image in others}
