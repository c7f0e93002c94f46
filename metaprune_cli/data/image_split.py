"""One split of a dataset: labelled images that come in batches, in an order that depends on one seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from metaprune_cli.config import Augmentation
from metaprune_cli.data.augment import augmented
from metaprune_cli.data.batch import Batch, drawn, shares
from metaprune_cli.data.digest import digest_of


@runtime_checkable
class Images(Protocol):
    """Where pixels come from: memory or files."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    @property
    def digest(self) -> str:
        """SHA-256 of what tells these images from others, wherever they lie."""

    def read(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """The images at the positions ``order``, as uint8 batches (n, c, h, w)."""


@dataclass(frozen=True, eq=False)
class MemoryImages:
    """Images held in one uint8 tensor (n, c, h, w); ``resized_from`` is the digest of what they were before."""

    pixels: Tensor
    resized_from: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pixels as they were read: resizing may round differently elsewhere."""
        return self.resized_from or digest_of(self.pixels)

    def read(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """The images at the positions ``order``, as uint8 batches (n, c, h, w)."""
        for chunk in torch.split(order, batch_size):
            yield self.pixels[chunk]


@dataclass(frozen=True)
class Preparation:
    """What happens to pixels on their way into a network; ``mean`` and ``std`` per channel, for values in [0, 1].

    With ``backwards`` the channels are turned round first: blue, green, red.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = "none"
    backwards: bool = False

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 (n, c, h, w) as float32 of zero mean and unit variance over the dataset."""
        # what torchvision's to_dtype and normalize compute, bit for bit, without its import, which takes longer
        pixels = pixels.flip(1) if self.backwards else pixels
        scaled = pixels.to(torch.float32).mul_(1 / 255)
        mean, std = (torch.tensor(figures, device=pixels.device).view(-1, 1, 1) for figures in (self.mean, self.std))
        return scaled.sub_(mean).div_(std)


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Some of the images of one source.

    Args:
        images: the source.
        labels: class of every image of the source, int64 (images,).
        index: positions in the source that belong to this split, int64 (n,).
        preparation: normalisation and augmentation.
    """

    images: Images
    labels: Tensor
    index: Tensor
    preparation: Preparation

    def __len__(self) -> int:
        return len(self.index)

    @property
    def digest(self) -> str:
        """SHA-256 of the images and labels of the source, and of which of them belong to this split."""
        return digest_of(self.images.digest, self.labels, self.index)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches of normalised images float32 (n, c, h, w) and labels int64 (n,).

        The order, and every random crop and flip, depend on ``shuffle_seed`` and ``batch_size`` alone, so a resumed
        epoch is the same epoch; without a seed the order is that of the files. With ``part`` (number, of how many),
        only that part of every batch, with draws of its own; no other image is read. A batch of fewer images than parts
        has none for the last ones.
        """
        number, parts = part
        generator = torch.Generator().manual_seed(shuffle_seed or 0)
        order = self.index
        if shuffle_seed is not None:
            order = order[torch.randperm(len(order), generator=generator)]
        mine = shares(order, batch_size, drop_last, number, parts)
        if not mine:
            return
        if number:
            generator.manual_seed((shuffle_seed or 0) + number)
        pixel_batches = self.images.read(torch.cat(mine), len(mine[0]))
        for positions, pixels in zip(mine, pixel_batches, strict=True):
            pixels = pixels.to(device)
            if augment:
                pixels = augmented(pixels, self.preparation.augmentation, generator)
            yield Batch(self.preparation.normalised(pixels), self.labels[positions].to(device))

    def subset(self, n: int, seed: int) -> ImageSplit:
        """``n`` images drawn by ``seed``, in file order; all of them where there are no more than ``n``."""
        return self.at(drawn(len(self), n, seed))

    def at(self, positions: Tensor) -> ImageSplit:
        """The images at ``positions`` of this split, int64 (n,)."""
        return replace(self, index=self.index[positions])


def stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions split in two, ``fraction`` of them in the second part, evenly over the classes; both in file order.

    Every class is shuffled and spread over [0, 1), from a random offset; the second part is what comes first there.

    Args:
        labels: int64 (n,).
        fraction: in (0, 1); the second part has exactly ``round(fraction * n)`` positions.
        seed: of the shuffling.
    """
    generator = torch.Generator().manual_seed(seed)
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels):
        members = (labels == label).nonzero().flatten()
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        place[members] = (torch.randperm(len(members), generator=generator) + offset) / len(members)
    second = torch.zeros(len(labels), dtype=torch.bool)
    second[place.argsort()[: round(fraction * len(labels))]] = True
    return (~second).nonzero().flatten(), second.nonzero().flatten()
