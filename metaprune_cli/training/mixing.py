"""Images mixed with others of their batch, and what the loss of a mixture is.

mixup (arXiv 1710.09412): λ x + (1 − λ) x′. cutmix (arXiv 1905.04899): a rectangle of x′ in x, λ the share of x that is
left. Either way, with λ from Beta(α, α), the loss is λ L(f, y) + (1 − λ) L(f, y′), L the task's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta

from metaprune_cli.config import OptimSettings
from metaprune_cli.data.batch import Batch, size_of, take
from metaprune_cli.errors import InputError
from metaprune_cli.tasks.base import Meter, Task


@dataclass(frozen=True, eq=False)
class Mixture:
    """Inputs and their targets; where they are mixtures, of ``share`` of one sample and the rest of a partner."""

    inputs: Any
    targets: Any
    partners: Any = None
    share: float = 1.0

    def __len__(self) -> int:
        return size_of(self.targets)

    def loss(self, task: Task, output: Any) -> Tensor:
        """The task's, the mean over the batch."""
        loss = task.loss(output, self.targets)
        if self.partners is None:
            return loss
        return self.share * loss + (1 - self.share) * task.loss(output, self.partners)

    def tell_(self, meter: Meter, task: Task, output: Any) -> None:
        """Tell a meter of the batch; a mixture counts for each of its two targets by its share."""
        if self.partners is None:
            meter.update(output, self.targets)
            return
        for targets, weight in ((self.targets, self.share), (self.partners, 1 - self.share)):
            part = task.quick_meter()
            part.update(output, targets)
            meter.merge(weight * part.sums())


def check_mixable(settings: OptimSettings, task: Task) -> None:
    """Make sure that samples can be mixed, if they are to be.

    Raises:
        InputError: the task's cannot.
    """
    wanted = [name for name in ("mixup", "cutmix") if getattr(settings, name)]
    if wanted and not task.mixable:
        raise InputError(
            f"Samples of the task {task.name} cannot be mixed.",
            expected="0",
            got=", ".join(f"{name} {getattr(settings, name):g}" for name in wanted),
            where=", ".join(wanted),
            next_step="leave it out",
        )


def mixed(batch: Batch, settings: OptimSettings) -> Mixture:
    """A batch as the settings want it mixed; where they name both ways, one of them, drawn for each batch.

    All draws are from torch's global generator on the CPU, which makes them the same on every device.
    """
    images, targets = batch
    ways = [(alpha, mix) for alpha, mix in ((settings.mixup, _mixup), (settings.cutmix, _cutmix)) if alpha]
    if not ways:
        return Mixture(images, targets)
    alpha, mix = ways[int(torch.randint(len(ways), ()))]
    share = float(Beta(torch.tensor(alpha), torch.tensor(alpha)).sample())
    order = torch.randperm(len(images)).to(images.device)
    mixture, share = mix(images, images[order], share)
    return Mixture(mixture, targets, take(targets, order), share)


def _mixup(images: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    return images.lerp(others, 1 - share), share


def _cutmix(images: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """The rectangle has the image's proportions and lies anywhere; what sticks out of the image is not counted."""
    height, width = images.shape[2:]
    rows, columns = (_span(size, math.sqrt(1 - share)) for size in (height, width))
    mixture = images.clone()
    mixture[:, :, rows, columns] = others[:, :, rows, columns]
    return mixture, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


def _span(size: int, fraction: float) -> slice:
    length, middle = round(size * fraction), int(torch.randint(size, ()))
    start = middle - length // 2
    return slice(max(start, 0), min(start + length, size))
