"""CIFAR ResNets (https://arxiv.org/abs/1512.03385, section 4.2), with projection or padded shortcuts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.models.layers import conv_bn, initialise_, scaled

DEPTHS = (8, 14, 20, 32, 44, 56, 110)
Shortcut = Literal["projection", "padded"]
"""Options B and A of the paper."""


class PaddedShortcut(nn.Module):
    """Every ``stride``-th position, the new channels zero; half of them before and half behind, as in public models."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, h, w) to (batch, out, ⌈h / stride⌉, ⌈w / stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def shortcut_of(in_channels: int, out_channels: int, stride: int, kind: Shortcut) -> nn.Module:
    """What a block adds to what its convolutions make: its input, brought to their shape."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    make = PaddedShortcut if kind == "padded" else _projection
    return make(in_channels, out_channels, stride)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return conv_bn(in_channels, out_channels, 1, stride)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, out_channels, 3, stride)
        self.conv2, self.bn2 = conv_bn(out_channels, out_channels, 3)
        self.shortcut = shortcut_of(in_channels, out_channels, stride, shortcut)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, h, w) to (batch, out, ⌈h / stride⌉, ⌈w / stride⌉)."""
        inner: Tensor = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A stem and three stages of basic blocks, 16, 32 and 64 channels wide; 6n + 2 layers deep.

    Its entries are called as in public models: ``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer2.0.shortcut.0``, ``fc``.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        shortcut: Shortcut = "projection",
    ) -> None:
        super().__init__()
        if shortcut not in ("projection", "padded"):
            raise ValueError(f"shortcut is projection or padded, not {shortcut!r}")
        stages: list[nn.Module] = []
        channels = [scaled(base, width) for base in (16, 32, 64)]
        self.conv1, self.bn1 = conv_bn(in_channels, channels[0], 3)
        self.relu = nn.ReLU()
        previous = channels[0]
        for stage, out_channels in enumerate(channels):
            blocks: list[nn.Module] = []
            for block in range((depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(previous, out_channels, stride, shortcut))
                previous = out_channels
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(previous, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, h, w) of any size to logits (batch, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return logits
