"""The images that pruning itself looks at: for criteria that need data, for repairs, and for a search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from metaprune_cli.config import Criterion, PruneSettings
from metaprune_cli.data import Batch, Splits
from metaprune_cli.data.batch import AnyBatch, chunks, take
from metaprune_cli.tasks import Task, find_task
from metaprune_cli.workflows.samples import Samples, without_images


@dataclass(frozen=True, eq=False)
class Calibration:
    """Images of the training split, not augmented; read when they are asked for.

    Attributes:
        samples: what they are taken from.
        settings: how many, and whether any are needed.
        device: where they are put.
        given_batches: for criteria, in place of those.
        given_inputs: for repairs, in place of those.
    """

    samples: Samples
    settings: PruneSettings
    device: torch.device
    given_batches: tuple[AnyBatch, ...] | None = None
    given_inputs: Any = None

    @classmethod
    def none(cls, settings: PruneSettings) -> Calibration:
        """Where there are no images; the CPU is where what needs none is measured."""
        return cls(Samples(find_task(None)), settings, torch.device("cpu"))

    @property
    def needed(self) -> bool:
        """Whether the settings need images at all."""
        ranked = self.settings.criterion == "auto" and self.preferred is not None
        return self.settings.needs_images or ranked or ":" in self.settings.criterion

    @property
    def there(self) -> bool:
        """Whether there is anything to take images from."""
        return self.samples.read is not None

    @property
    def preferred(self) -> Criterion | None:
        """By which units are ranked where nothing else is said, if the task says so and there are images for it."""
        return self.task.criterion if self.there or self.given_batches is not None else None

    @property
    def splits(self) -> Splits:
        """All images of the data set."""
        return self.samples.splits

    @property
    def batch_size(self) -> int:
        """Of the passes over the images."""
        return self.samples.batch_size

    @property
    def task(self) -> Task:
        """What the models are for."""
        return self.samples.task

    def demanded_by(self, wanted_for: str) -> Calibration:
        """The same.

        Raises:
            InputError: there is nothing to take images from.
        """
        if not self.there:
            raise without_images(wanted_for)
        return self

    @cached_property
    def batches(self) -> tuple[AnyBatch, ...]:
        """For criteria: the first ``batches`` of a shuffled epoch; none where there are no images."""
        if self.given_batches is not None or not self.there:
            return self.given_batches or ()
        batches = self.splits.train.batches(self.batch_size, shuffle_seed=0, device=self.device)
        return tuple(islice(batches, self.settings.batches))

    @cached_property
    def judged(self) -> tuple[Batch, ...]:
        """For a search: ``search_images`` and their targets, others than those for repairs while there are any."""
        taken = self.settings.repair != "none" and self.given_inputs is None
        wanted = self.settings.search_images + (self.settings.repair_images if taken else 0)
        found = next(iter(self.splits.train.batches(wanted, shuffle_seed=0, device=self.device)))
        last = Batch(*(take(part, slice(-self.settings.search_images, None)) for part in found))
        return tuple(chunks(last, self.batch_size))

    @cached_property
    def inputs(self) -> Any:
        """For repairs: ``repair_images`` of the shuffled training images at once; None where nothing is repaired."""
        if self.given_inputs is not None or self.settings.repair == "none" or not self.there:
            return self.given_inputs
        return self.shown

    @cached_property
    def shown(self) -> Any:
        """For sensitivities: the same, whether anything is repaired or not.

        Raises:
            InputError: there are none.
        """
        if self.given_inputs is not None:
            return self.given_inputs
        self.demanded_by("--scope sensitivity")
        return next(iter(self.splits.train.batches(self.settings.repair_images, shuffle_seed=0, device=self.device)))[0]
