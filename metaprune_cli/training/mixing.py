"""Images mixed with others of their batch, and what the loss of a mixture is.

mixup (arXiv 1710.09412): λ x + (1 − λ) x′. cutmix (arXiv 1905.04899): a rectangle of x′ in x, λ the share of x that is
left. Either way, with λ from Beta(α, α), the loss is λ CE(f, y) + (1 − λ) CE(f, y′).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from metaprune_cli.config import OptimSettings


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and their labels; where they are mixtures, of ``share`` of one image and the rest of a partner."""

    images: Float[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"]
    partners: Int[Tensor, " n"] | None = None
    share: float = 1.0

    def loss(self, logits: Float[Tensor, "n classes"], label_smoothing: float) -> Float[Tensor, ""]:
        """Mean cross-entropy."""
        loss = F.cross_entropy(logits, self.labels, label_smoothing=label_smoothing)
        if self.partners is None:
            return loss
        other = F.cross_entropy(logits, self.partners, label_smoothing=label_smoothing)
        return self.share * loss + (1 - self.share) * other

    def hits(self, logits: Float[Tensor, "n classes"]) -> float:
        """How many are right; a mixture is so by the share of the image whose label it got."""
        guesses = logits.argmax(1)
        right = int((guesses == self.labels).sum())
        if self.partners is None:
            return right
        return self.share * right + (1 - self.share) * int((guesses == self.partners).sum())


def mixed(
    images: Float[Tensor, "n channels height width"], labels: Int[Tensor, " n"], settings: OptimSettings
) -> Batch:
    """A batch as the settings want it mixed; where they name both ways, one of them, drawn for each batch.

    All draws are from torch's global generator on the CPU, which makes them the same on every device.
    """
    ways = [(alpha, mix) for alpha, mix in ((settings.mixup, _mixup), (settings.cutmix, _cutmix)) if alpha]
    if not ways:
        return Batch(images, labels)
    alpha, mix = ways[int(torch.randint(len(ways), ()))]
    share = float(Beta(torch.tensor(alpha), torch.tensor(alpha)).sample())
    order = torch.randperm(len(images)).to(images.device)
    mixture, share = mix(images, images[order], share)
    return Batch(mixture, labels, labels[order], share)


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
