"""The images that pruning itself looks at: for criteria that need data, and for repairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from metaprune_cli.config import DataSettings, PruneSettings
from metaprune_cli.data import Batch, Splits
from metaprune_cli.data.batch import chunks, take
from metaprune_cli.tasks import Task
from metaprune_cli.workflows.task import task_of


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images of the training split, not augmented; read when they are asked for.

    Attributes:
        data: which images.
        settings: how many, and whether any are needed.
        device: where they are put.
    """

    data: DataSettings
    settings: PruneSettings
    device: torch.device

    @property
    def needed(self) -> bool:
        """Whether the settings need images at all."""
        return self.settings.needs_images or ":" in self.settings.criterion

    @cached_property
    def splits(self) -> Splits:
        """All images of the data set."""
        return self.task.splits(self.data)

    @property
    def task(self) -> Task:
        """What the models are for."""
        return task_of(self.data)

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """For criteria: the first ``batches`` of a shuffled epoch."""
        batches = self.splits.train.batches(self.data.batch_size, shuffle_seed=0, device=self.device)
        return tuple(islice(batches, self.settings.batches))

    @cached_property
    def judged(self) -> tuple[Batch, ...]:
        """For a search: ``search_images`` and their targets, others than those for repairs while there are any."""
        repairing = 0 if self.settings.repair == "none" else self.settings.repair_images
        wanted = repairing + self.settings.search_images
        found = next(iter(self.splits.train.batches(wanted, shuffle_seed=0, device=self.device)))
        last = Batch(*(take(part, slice(-self.settings.search_images, None)) for part in found))
        return tuple(chunks(last, self.data.batch_size))

    @cached_property
    def inputs(self) -> Any:
        """For repairs: ``repair_images`` of the shuffled training images at once; None where nothing is repaired."""
        if self.settings.repair == "none":
            return None
        return next(iter(self.splits.train.batches(self.settings.repair_images, shuffle_seed=0, device=self.device)))[0]
