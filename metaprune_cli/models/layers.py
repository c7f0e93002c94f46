"""What the CIFAR-sized convolutional networks share: scaled channels, one kind of convolution, one initialisation."""

from __future__ import annotations

from torch import nn


def scaled(channels: int, width: float) -> int:
    """``channels`` times the width factor, at least one."""
    return max(1, round(channels * width))


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Sequential:
    """A convolution and its BatchNorm, padded so that only the stride changes the size of the map."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias),
        nn.BatchNorm2d(out_channels),
    )


def head(in_channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling, which takes maps of any size, and a linear classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(in_channels, num_classes))


def initialise_(module: nn.Module) -> None:
    """He initialisation of all convolutions (https://arxiv.org/abs/1502.01852), by fan-out."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
