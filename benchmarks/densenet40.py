"""DenseNet-40 of growth 12 for small images (arXiv 1608.06993): ``--arch benchmarks/densenet40.py:densenet``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """Adds ``growth`` channels of its own to those it is given."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From (n, channels, h, w) to (n, channels + growth, h, w)."""
        return torch.cat([x, self.conv(self.norm(x).relu())], 1)


def densenet(depth: int = 40, growth: int = 12, in_channels: int = 3, num_classes: int = 10) -> nn.Sequential:
    """Three stages of (depth - 4) / 3 layers, between them a convolution of one pixel and a halving."""
    channels = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)]
    for stage in range(3):
        if stage:
            layers += [*_activated(channels), nn.Conv2d(channels, channels, 1, bias=False), nn.AvgPool2d(2)]
        for _ in range((depth - 4) // 3):
            layers.append(DenseLayer(channels, growth))
            channels += growth
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers, *_activated(channels), *head)


def _activated(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU()
