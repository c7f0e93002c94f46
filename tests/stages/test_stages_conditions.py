"""What an evaluation says of how far it is."""

from __future__ import annotations

import torch
from torch import nn

from metaprune_cli.config import DataSettings, EvalSettings
from metaprune_cli.reports.conditions import Conditions
from metaprune_cli.workflows.task import task_of


class Heard:
    def __init__(self) -> None:
        self.totals: list[int] = []
        self.steps = 0

    def begin(self, label: str, total: int) -> None:
        self.totals.append(total)

    def step(self, **figures: float) -> None:
        self.steps += 1

    def end(self) -> None:
        pass


def test_whole_images_are_counted_one_by_one() -> None:
    data, heard = DataSettings(dataset="photos", task="denoising"), Heard()
    task = task_of(data)
    conditions = Conditions(
        task, task.test(data), task.beside_test(data), data, EvalSettings(batch_size=8), torch.device("cpu"), heard
    )
    conditions.score(nn.Identity())
    assert sum(heard.totals) == heard.steps == 2
