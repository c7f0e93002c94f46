"""CIFAR ResNets (https://arxiv.org/abs/1512.03385, section 4.2) with projection shortcuts."""

from __future__ import annotations

from torch import Tensor, nn

from metaprune_cli.models.layers import conv_bn, head, initialise_, scaled

DEPTHS = (8, 14, 20, 32, 44, 56, 110)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, a 1×1 projection where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(in_channels, out_channels, 3, stride)
        self.second = conv_bn(out_channels, out_channels, 3)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else conv_bn(in_channels, out_channels, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, h, w) to (batch, out, ⌈h / stride⌉, ⌈w / stride⌉)."""
        out: Tensor = self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A stem and three stages of basic blocks, 16, 32 and 64 channels wide; 6n + 2 layers deep."""

    def __init__(self, depth: int, num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        channels = [scaled(base, width) for base in (16, 32, 64)]
        self.stem = nn.Sequential(conv_bn(in_channels, channels[0], 3), nn.ReLU())
        stages: list[nn.Module] = []
        previous = channels[0]
        for stage, out_channels in enumerate(channels):
            blocks: list[nn.Module] = []
            for block in range((depth - 2) // 6):
                blocks.append(BasicBlock(previous, out_channels, stride=2 if stage > 0 and block == 0 else 1))
                previous = out_channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = head(previous, num_classes)
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in_channels, h, w) of any size to logits (batch, num_classes)."""
        logits: Tensor = self.head(self.stages(self.stem(x)))
        return logits
