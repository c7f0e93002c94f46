"""Splits of image pairs: random patches to learn from, and whole images, one at a time, to measure by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaprune_cli.config import Augmentation
from metaprune_cli.data.batch import Batch, batch_order, drawn, on, shares
from metaprune_cli.data.digest import digest_of
from metaprune_cli.data.pairs import Pairs


@dataclass(frozen=True)
class Degradation:
    """What happens to pixels on their way into a network: noise, then normalisation; targets stay in [0, 1].

    Attributes:
        sigma: standard deviation of the noise, for pixels from 0 to 255; it is not clipped.
        mean: of every channel, or one for all; subtracted, for pixels in [0, 1], as ``std`` is divided by.
    """

    sigma: float = 0.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def input_of(self, pixels: Tensor, seed: int, item: int) -> Tensor:
        """An image uint8 (c, h, w) as a network is given it; the noise follows from ``seed`` and ``item`` alone."""
        found = scaled(pixels)
        if self.sigma:
            found = found + torch.randn(found.shape, generator=generator_of(seed, item)) * (self.sigma / 255)
        mean, std = (torch.tensor(figures).view(-1, 1, 1) for figures in (self.mean, self.std))
        return (found - mean) / std


@dataclass(frozen=True, eq=False)
class PatchSplit:
    """Squares cut out of images; where, and turned over how, is drawn anew for every seed.

    Attributes:
        pairs: the whole images, which take turns.
        side: of an input.
        index: numbers of the patches, int64 (n,), of all that an epoch has.
        degradation: what a network is given.
        augmentation: with ``flip``, patches are mirrored left to right and top to bottom, and transposed.
    """

    pairs: Pairs
    side: int
    index: Tensor
    degradation: Degradation
    augmentation: Augmentation = "none"

    def __len__(self) -> int:
        return len(self.index)

    @property
    def digest(self) -> str:
        """SHA-256 of the images, and of how many patches of which kind are cut out of them."""
        return digest_of(self.pairs.digest, self.index, repr((self.side, self.degradation)))

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
        """Batches of patches float32 (n, c, side, side) and of what they should become, in [0, 1].

        A patch is the same for the same seed, whoever asks for it and whatever the batch size; without a seed it is
        that of the seed 0, and patches are in order.
        """
        number, parts = part
        flips = augment and "flip" in self.augmentation
        for positions in shares(batch_order(len(self), shuffle_seed), batch_size, drop_last, number, parts):
            found = [self._patch(item, shuffle_seed or 0, flips) for item in self.index[positions].tolist()]
            yield on(device, Batch(*(torch.stack(each) for each in zip(*found, strict=True))))

    def subset(self, n: int, seed: int) -> PatchSplit:
        """``n`` patches drawn by ``seed``, in order; all of them where there are no more than ``n``."""
        return self.at(drawn(len(self), n, seed))

    def at(self, positions: Tensor) -> PatchSplit:
        """The patches at ``positions``, int64 (n,)."""
        return replace(self, index=self.index[positions])

    def _patch(self, item: int, seed: int, flips: bool) -> tuple[Tensor, Tensor]:
        whole, target = (each[item % len(self.pairs)] for each in (self.pairs.inputs, self.pairs.targets))
        draw = torch.rand(5, generator=generator_of(seed, -1 - item)).tolist()
        top, left = (int(part * (size - self.side + 1)) for part, size in zip(draw[:2], whole.shape[1:], strict=True))
        cuts = (
            image[:, top * times : (top + self.side) * times, left * times : (left + self.side) * times]
            for image, times in ((whole, 1), (target, self.pairs.scale))
        )
        own, wanted = (_turned(image, draw[2:]) if flips else image for image in cuts)
        return self.degradation.input_of(own, seed, item), scaled(wanted)


@dataclass(frozen=True, eq=False)
class WholeSplit:
    """Whole images, which differ in size: every batch is of one.

    Attributes:
        pairs: the images.
        index: which of them belong to this split, int64 (n,).
        degradation: what a network is given; its noise is always the same.
    """

    pairs: Pairs
    index: Tensor
    degradation: Degradation

    def __len__(self) -> int:
        return len(self.index)

    @property
    def digest(self) -> str:
        """SHA-256 of the images, of which of them belong here, and of what is done to them."""
        return digest_of(self.pairs.digest, self.index, repr(self.degradation))

    @property
    def names(self) -> list[str]:
        """Of the images."""
        return [self.pairs.names[item] for item in self.index.tolist()]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: bool = False,  # noqa: ARG002 - what is measured by is never varied
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Images float32 (1, c, h, w) and what they should become, in [0, 1], one by one; batches are shared."""
        number, parts = part
        for positions in shares(batch_order(len(self), shuffle_seed), batch_size, drop_last, number, parts):
            for item in self.index[positions].tolist():
                given = self.degradation.input_of(self.pairs.inputs[item], 0, item)
                yield on(device, Batch(given[None], scaled(self.pairs.targets[item])[None]))

    def subset(self, n: int, seed: int) -> WholeSplit:
        """``n`` images drawn by ``seed``, in order; all of them where there are no more than ``n``."""
        return self.at(drawn(len(self), n, seed))

    def at(self, positions: Tensor) -> WholeSplit:
        """The images at ``positions``, int64 (n,)."""
        return replace(self, index=self.index[positions])


def scaled(pixels: Tensor) -> Tensor:
    """Pixels of 8 bits as float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255


def generator_of(seed: int, item: int) -> torch.Generator:
    """Random numbers of an item, which follow from both numbers alone."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (item + 2**31) * 0xD1B54A32D192ED03) % 2**64  # odd factors: no two alike
    return torch.Generator().manual_seed((mixed ^ mixed >> 31) % 2**63)


def _turned(image: Tensor, draw: list[float]) -> Tensor:
    """One of the eight ways to lay a square."""
    horizontal, vertical, transposed = (value < 0.5 for value in draw)
    image = image.flip(-1) if horizontal else image
    image = image.flip(-2) if vertical else image
    return image.transpose(-1, -2) if transposed else image
