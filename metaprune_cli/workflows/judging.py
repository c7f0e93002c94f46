"""How good certain widths are, without training: what is left is cropped, repaired, and asked on images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from metaprune_cli.config import Repair, Route, SearchSettings
from metaprune_cli.data import Batch
from metaprune_cli.data.batch import Split, batch_order, size_of, take
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.methods.base import WidthWeights
from metaprune_cli.pruning.crops import Crops
from metaprune_cli.pruning.repair import Original, repaired
from metaprune_cli.pruning.surgery import UnfitError
from metaprune_cli.tasks import measure
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.device import SMALL_PASS, threads_for
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.samples import Samples

LEAST_PARTS, PART = 16, 64
"""Into how many parts images are divided, over which differences are compared, and how many a part has at most."""
QUICK_IMAGES, QUICK_ROWS = 128, 1024
"""Of the repair by which candidates are told apart; what is found is repaired in full."""

Images = Literal["judging", "verifying"]
"""Which of them: those that judge candidates, or those that had no say before the leaders meet."""


@dataclass(frozen=True)
class Judged:
    """What a candidate was found to do, on every part of the images: the lower the better."""

    parts: tuple[float, ...]
    headline: float

    @property
    def fitness(self) -> float:
        """The mean; infinite where the model cannot do with such widths."""
        return sum(self.parts) / len(self.parts)

    def over(self, other: Judged) -> tuple[float, float]:
        """How much lower this is than another on the same images, and the standard error of that."""
        gains = torch.tensor(other.parts, dtype=torch.float64) - torch.tensor(self.parts, dtype=torch.float64)
        return float(gains.mean()), float(gains.std() / math.sqrt(len(gains))) if len(gains) > 1 else math.inf


UNFIT = Judged((math.inf,), math.nan)
"""Of widths that the model cannot do with, or whose outputs are not finite."""


@dataclass(frozen=True, eq=False)
class Judge:
    """A model, and the images that judge what is left of it; the same verdict in any process.

    Attributes:
        run: the model; its images are those for repairs alone.
        images: that judge.
        by: the loss, or the task's first metric.
        weights: where candidates' weights come from; None: the model's own, repaired as the run says.
        own_in_the_end: whether the leaders are judged with the model's own units all the same, as they will be written.
        route: by which the model is left without units.
        probes: choices of units that it has to be able to do with.
        num_threads: that it computes with, wherever it does: their number can change the last bit of a sum.
    """

    run: PruningRun
    images: Mapping[Images, tuple[Batch, ...]]
    by: Literal["loss", "metric"] = "loss"
    weights: WidthWeights | None = None
    own_in_the_end: bool = True
    route: Route = "auto"
    probes: tuple[Tensor, ...] = ()
    num_threads: int = 1

    @classmethod
    def of(
        cls,
        run: PruningRun,
        settings: SearchSettings,
        *,
        weights: WidthWeights | None = None,
        route: Route = "auto",
        probes: Sequence[Tensor] = (),
        repairs: bool = False,
    ) -> Judge:
        """With images that the repairs do not look at, as far as there are enough; ``repairs``: there are some anyway.

        Raises:
            InputError: there are no images.
        """
        images = run.images.demanded_by("A search")
        repairs = repairs or (weights is not None and weights.repair != "none")
        inputs = images.shown if repairs else images.inputs
        repairing = 0 if images.given_inputs is not None or inputs is None else run.settings.repair_images
        lean = Calibration(Samples(images.task), run.settings, images.device, given_inputs=inputs)
        found = _divided(images.splits.train, settings, repairing)
        batches = {name: tuple(_parts(split, settings.views, images.device)) for name, split in found.items()}
        seen = sum(size_of(batch.targets) for batch in batches["judging"])
        with threads_for(run.graph.macs * seen + run.repair_macs, SMALL_PASS):
            return cls(
                replace(run, images=lean),
                batches,
                settings.fitness,
                weights,
                settings.weights != "inherited",
                route,
                tuple(probes),
                torch.get_num_threads(),
            )

    def number_of(self, images: Images) -> int:
        """How many images these are, views counted."""
        return sum(size_of(batch.targets) for batch in self.images[images])

    def quickly(self, kept: Bool[Tensor, " units"]) -> Judged:
        """By the images that judge, after as much of a repair as tells candidates apart."""
        return self._judged("judging", kept, thorough=False)

    def repairing_by(self, how: Repair) -> Judge:
        """The same of the model's own units, repaired in a way of one's own."""
        return replace(self, run=replace(self.run, settings=replace(self.run.settings, repair=how)), weights=None)

    def thoroughly(self, kept: Bool[Tensor, " units"]) -> Judged:
        """By the other images, after the whole repair."""
        return self._judged("verifying", kept, thorough=True)

    def _judged(self, images: Images, kept: Tensor, *, thorough: bool) -> Judged:
        before = torch.get_num_threads()
        torch.set_num_threads(self.num_threads)
        try:
            return self._asked(self._left(kept, thorough=thorough), self.images[images])
        except (UnfitError, NumericsError):
            return UNFIT
        except RuntimeError:  # shapes that do not fit, or something worse
            if self.run.failure_by(self.route)(kept) is None:
                raise
            return UNFIT
        finally:
            torch.set_num_threads(before)

    def _asked(self, small: nn.Module, batches: tuple[Batch, ...]) -> Judged:
        task, device = self.run.images.task, self.run.device
        scores = [measure(small.to(device), [batch], device, task) for batch in batches]
        metric = task.metrics[0]
        parts = [score.loss if self.by == "loss" else metric.loss(0.0, score.headline) for score in scores]
        return Judged(tuple(parts), sum(score.headline for score in scores) / len(scores))

    def _left(self, kept: Tensor, *, thorough: bool) -> nn.Module:
        if self.weights is not None and not (thorough and self.own_in_the_end):
            return self.generated(kept, self.weights)
        small, how = self._crops.run(kept), self.run.settings.repair
        if thorough:
            return self.run.repaired(small, kept)[0]
        original = self._original if how in ("bias", "least-squares") else None
        small = small.to(self.run.device)
        return repaired(small, self.run.whole, self.run.graph, kept, self._inputs, how, original=original)[0]

    def generated(self, kept: Bool[Tensor, " units"], weights: WidthWeights) -> nn.Module:
        """What is left with weights from elsewhere."""
        small, run = self._crops.run(kept, weights.tensors_for(kept)).to(self.run.device), self.run
        return repaired(small, run.whole, run.graph, kept, run.images.inputs, weights.repair)[0]

    @cached_property
    def _inputs(self) -> Any:
        """A few of those for repairs."""
        inputs = self.run.images.inputs
        return None if inputs is None else take(inputs, slice(QUICK_IMAGES))

    @cached_property
    def _original(self) -> Original:
        return Original.of(self.run.whole, self._inputs, self.run.settings.seed, QUICK_ROWS)

    @cached_property
    def _crops(self) -> Crops:
        run = self.run
        return Crops.of(run.model, run.graph, run.example, self.route, trials=run.trials, probes=self.probes)


def _divided(train: Split, settings: SearchSettings, repairing: int) -> dict[Images, Split]:
    """Images that judge, and others that verify, none of which repairs; fewer of both where there are too few.

    Raises:
        InputError: there are not even two.
    """
    order = batch_order(len(train), 0)  # that of the images for repairs
    left = order[repairing:] if len(order) - repairing >= 2 * LEAST_PARTS else order
    if len(left) < 2:
        raise InputError("A search needs images to judge by.", expected="two at least", got=len(left))
    wanted = settings.images + settings.verify
    judging = settings.images if wanted <= len(left) else max(len(left) * settings.images // wanted, 1)
    return {"judging": train.at(left[:judging]), "verifying": train.at(left[judging:][: settings.verify])}


def _parts(split: Split, views: int, device: torch.device) -> Iterator[Batch]:
    """All images, and as many augmented views of each as there are to be beside them, in parts of one size."""
    size = max(min(PART, len(split) // LEAST_PARTS), 1)
    for view in range(views):
        yield from split.batches(size, shuffle_seed=view or None, augment=view > 0, device=device, drop_last=True)
