"""CIFAR VGGs with BatchNorm (https://arxiv.org/abs/1409.1556) and a single linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

from metaprune_cli.models.layers import conv_bn, head, initialise_, scaled

# Convolutions before each of the five poolings (VGG paper, table 1, columns A, D, E).
STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Plain 3×3 convolutions in five stages, a maximum pooling after each.

    The convolutions of most public ones have a ``bias``, which BatchNorm makes superfluous.
    """

    def __init__(
        self, depth: int, num_classes: int = 10, in_channels: int = 3, width: float = 1.0, bias: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = in_channels
        for count, base in zip(STAGES[depth], CHANNELS, strict=True):
            for _ in range(count):
                layers += [conv_bn(previous, scaled(base, width), 3, bias=bias), nn.ReLU()]
                previous = scaled(base, width)
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # a map of size 1 stays: 8×8 digits go through
        self.features = nn.Sequential(*layers)
        self.head = head(previous, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, h, w) of any size to logits (batch, num_classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits
