"""A task that a tiny network learns in a second, and a small zoo for it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.data.image_split import ImageSplit, MemoryImages, Preparation
from metaprune_cli.graph import encode
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.learning.zoo import ZooEntry

CLASSES = 3


class Tiny(nn.Module):
    """A residual block, BatchNorm, dropout (whose random numbers must survive a resume) and a frozen bias."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(width, CLASSES)
        self.head.bias.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.stem(images)).relu()
        hidden = hidden + self.outer(self.inner(hidden).relu())
        logits: Tensor = self.head(self.drop(hidden.mean((2, 3))))
        return logits


def images(count: int, seed: int) -> ImageSplit:
    """Noise with a bright row, a bright column or a bright diagonal."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    pixels = torch.randint(0, 90, (count, 1, 6, 6), generator=generator, dtype=torch.uint8)
    for image, label in zip(pixels, labels, strict=True):
        marked = {0: image[0, 2], 1: image[0, :, 3], 2: image[0].diagonal()}[int(label)]
        marked += 120
    return ImageSplit(MemoryImages(pixels), labels, torch.arange(count), Preparation((0.2,), (0.2,), "crop"))


@cache
def _entry(seed: int) -> ZooEntry:
    torch.manual_seed(seed)
    model = Tiny(width=6 + seed % 2).eval()
    return ZooEntry(f"tiny-{seed}", model, encode(model, torch.zeros(1, 1, 6, 6)))


@pytest.fixture
def train() -> ImageSplit:
    return images(100, seed=0)


@pytest.fixture
def val() -> ImageSplit:
    return images(40, seed=1)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Tiny().train()


@pytest.fixture
def zoo() -> list[ZooEntry]:
    return [_entry(0), _entry(1)]


@pytest.fixture
def held_out() -> list[ZooEntry]:
    return [_entry(2)]


@pytest.fixture
def metanet() -> MetaNetwork:
    torch.manual_seed(0)
    return MetaNetwork(MetaNetworkConfig(layers=2, hidden=4, ratio=0.1))
