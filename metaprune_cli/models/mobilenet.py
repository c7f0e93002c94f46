"""MobileNets V1 (https://arxiv.org/abs/1704.04861) and V2 (https://arxiv.org/abs/1801.04381) with CIFAR strides."""

from __future__ import annotations

from torch import Tensor, nn

from metaprune_cli.models.layers import conv_bn, head, initialise_, scaled

# (channels, stride) of each depthwise separable block: V1 paper, table 1, without the stem's and the first stride.
V1_BLOCKS = (
    (64, 1),
    *((128, 2), (128, 1)),
    *((256, 2), (256, 1)),
    *((512, 2), *((512, 1),) * 5),
    *((1024, 2), (1024, 1)),
)
# (expansion, channels, repeats, stride) of each stage: V2 paper, table 2, without the first two strides.
V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV1(nn.Module):
    """A stem and thirteen depthwise separable convolutions."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        previous = scaled(32, width)
        layers: list[nn.Module] = [conv_bn(in_channels, previous, 3), nn.ReLU()]
        for base, stride in V1_BLOCKS:
            out_channels = scaled(base, width)
            layers += [conv_bn(previous, previous, 3, stride, groups=previous), nn.ReLU()]
            layers += [conv_bn(previous, out_channels, 1), nn.ReLU()]
            previous = out_channels
        self.features = nn.Sequential(*layers)
        self.head = head(previous, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, h, w) of any size to logits (batch, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise 3×3, linear 1×1 projection; a residual connection where the shapes allow it.

    ``projected``: wherever the stride is 1, by a convolution where the widths differ; and a first expansion by 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, projected: bool = False
    ) -> None:
        super().__init__()
        hidden, act = in_channels * expansion, nn.ReLU if projected else nn.ReLU6
        expand = [] if expansion == 1 and not projected else [conv_bn(in_channels, hidden, 1), act()]
        self.body = nn.Sequential(
            *expand,
            *(conv_bn(hidden, hidden, 3, stride, groups=hidden), act()),
            conv_bn(hidden, out_channels, 1),
        )
        self.residual = stride == 1 and (projected or in_channels == out_channels)
        same = in_channels == out_channels or not self.residual
        self.shortcut = nn.Identity() if same else conv_bn(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, h, w) to (batch, out, ⌈h / stride⌉, ⌈w / stride⌉)."""
        out: Tensor = self.body(x)
        return self.shortcut(x) + out if self.residual else out


class MobileNetV2(nn.Module):
    """A stem, seventeen inverted residuals and a last 1×1 convolution.

    The usual public ones for CIFAR are ``projected``: ReLU, and shortcuts with a convolution where widths differ.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0, projected: bool = False
    ) -> None:
        super().__init__()
        previous, act = scaled(32, width), nn.ReLU if projected else nn.ReLU6
        layers: list[nn.Module] = [conv_bn(in_channels, previous, 3), act()]
        for expansion, base, repeats, first_stride in V2_STAGES:
            for stride in (first_stride, *(1,) * (repeats - 1)):
                layers.append(InvertedResidual(previous, scaled(base, width), stride, expansion, projected))
                previous = scaled(base, width)
        last = scaled(1280, width)
        layers += [conv_bn(previous, last, 1), act()]
        self.features = nn.Sequential(*layers)
        self.head = head(last, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, h, w) of any size to logits (batch, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits
