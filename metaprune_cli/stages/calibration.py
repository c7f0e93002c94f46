"""The images that pruning itself looks at: for criteria that need data, and for repairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from metaprune_cli.config import DataSettings, PruneSettings
from metaprune_cli.data import ImageSplit, Splits, load_splits
from metaprune_cli.pruning.evidence import Batch


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
        return load_splits(self.data)

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """For criteria: the first ``batches`` of a shuffled epoch."""
        batches = self.splits.train.batches(self.data.batch_size, shuffle_seed=0, device=self.device)
        return tuple(islice(batches, self.settings.batches))

    @cached_property
    def judged(self) -> tuple[Batch, ...]:
        """For a search: ``search_images`` and their classes, others than those for repairs while there are any.

        Where the search trains, they are at most half of all.
        """
        judges = self.splits.train.at(self._order[self._judging])
        return tuple(judges.batches(self.data.batch_size, device=self.device))

    @cached_property
    def others(self) -> ImageSplit:
        """For training in a search: all images but those that judge it."""
        rest = torch.ones(len(self._order), dtype=torch.bool)
        rest[self._order[self._judging]] = False
        return self.splits.train.at(rest.nonzero().flatten())

    @property
    def _order(self) -> Tensor:
        """Positions in the order of the shuffled epoch whose first images are for repairs."""
        return torch.randperm(len(self.splits.train), generator=torch.Generator().manual_seed(0))

    @property
    def _judging(self) -> slice:
        there, wanted = len(self.splits.train), self.settings.search_images
        if self.settings.search_epochs:
            wanted = min(wanted, there // 2)
        repairing = 0 if self.settings.repair == "none" else self.settings.repair_images
        end = min(repairing + wanted, there)
        return slice(max(0, end - wanted), end)

    @cached_property
    def inputs(self) -> Tensor | None:
        """For repairs: ``repair_images`` of the shuffled training images at once; None where nothing is repaired."""
        if self.settings.repair == "none":
            return None
        return next(iter(self.splits.train.batches(self.settings.repair_images, shuffle_seed=0, device=self.device)))[0]
