"""Random crops and flips of a whole batch, drawn per image.

The transforms of ``torchvision.transforms.v2`` would draw once for the whole batch, and image by image they cost more
than a training step of a small network; so both are a gather over the batch. All draws are made on the CPU, which makes
them the same on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.config import Augmentation

TINY_PX = 8


def augmented(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """A batch (n, c, h, w) of any dtype, augmented by name; the argument is not changed."""
    if "crop" in augmentation:
        images = random_crop(images, generator)
    if "flip" in augmentation:
        images = random_flip(images, generator)
    return images


def random_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (n, c, h, w) shifted by up to 4 pixels per axis (1 where it has 8 or fewer), black moving in."""
    n, _, height, width = images.shape
    pad = 1 if min(height, width) <= TINY_PX else 4
    top, left = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator).to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    image = torch.arange(n, device=images.device)[:, None, None]
    padded = F.pad(images, (pad, pad, pad, pad)).movedim(1, -1)  # channels last: the indexed axes stay together
    return padded[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (n, c, h, w) mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
