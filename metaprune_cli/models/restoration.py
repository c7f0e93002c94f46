"""Networks that restore images, their entries called as in public models."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Of DIV2K's colours, by which EDSR shifts them."""
LongSkip = Literal["none", "bilinear", "bicubic"]


def conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size of the image."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


class DnCNN(nn.Module):
    """A plain stack that estimates the noise (arXiv 1608.03981); entries as in KAIR: ``model.0.weight``.

    KAIR's public files have 17 or 20 layers of 64 channels, their BatchNorms folded.
    """

    def __init__(self, depth: int = 17, width: int = 64, in_channels: int = 3, norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(in_channels, width), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [conv(width, width), *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU()]
        self.model = nn.Sequential(*layers, conv(width, in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map noisy images (n, c, h, w) to clean ones."""
        clean: Tensor = x - self.model(x)
        return clean


class PlainBlock(nn.Module):
    """Two convolutions and a skip, without normalisation."""

    def __init__(self, width: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1, self.conv2 = conv(width, width), conv(width, width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width, h, w) to the same."""
        inner: Tensor = self.conv2(self.relu(self.conv1(x)))
        return x + inner * self.res_scale if self.res_scale != 1 else x + inner


def steps_of(scale: int) -> list[int]:
    """The factors of pixel shuffles, one after another: 2 and 2 for 4.

    Raises:
        ValueError: it is neither 3 nor a power of two.
    """
    steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    if scale < 2 or (scale != 3 and 2 ** len(steps) != scale):
        raise ValueError(f"scale is 2, 3, 4 or 8, not {scale}")
    return steps


class SRResNet(nn.Module):
    """SRResNet without normalisation (arXiv 1809.00219); entries as BasicSR's ``MSRResNet``."""

    def __init__(self, blocks: int = 16, width: int = 64, scale: int = 4, in_channels: int = 3) -> None:
        super().__init__()
        steps = steps_of(scale)
        self.scale = scale
        self.conv_first = conv(in_channels, width)
        self.body = nn.Sequential(*(PlainBlock(width, 1) for _ in range(blocks)))
        self.upconvs = [f"upconv{number}" for number, _ in enumerate(steps, 1)]
        for name, step in zip(self.upconvs, steps, strict=True):
            self.add_module(name, conv(width, width * step**2))
        self.pixel_shuffle = nn.PixelShuffle(steps[0])
        self.conv_hr, self.conv_last = conv(width, width), conv(width, in_channels)
        self.lrelu = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, c, h, w) to (n, c, scale · h, scale · w)."""
        out = self.body(self.lrelu(self.conv_first(x)))
        for name in self.upconvs:
            out = self.lrelu(self.pixel_shuffle(self.get_submodule(name)(out)))
        large: Tensor = self.conv_last(self.lrelu(self.conv_hr(out)))
        return large + enlarged(x, self.scale, "bilinear")


class EDSR(nn.Module):
    """Enhanced deep residual network (arXiv 1707.02921); entries as in BasicSR.

    With a ``long_skip`` the image itself, made larger, is added, and that is all a new network returns: a small one
    then learns in minutes.
    """

    def __init__(
        self,
        blocks: int = 16,
        width: int = 64,
        scale: int = 2,
        res_scale: float = 1.0,
        long_skip: LongSkip = "none",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if long_skip not in ("none", "bilinear", "bicubic"):
            raise ValueError(f"long_skip is none, bilinear or bicubic, not {long_skip!r}")
        self.scale, self.long_skip = scale, long_skip
        self.conv_first = conv(in_channels, width)
        self.body = nn.Sequential(*(PlainBlock(width, res_scale) for _ in range(blocks)))
        self.conv_after_body = conv(width, width)
        steps = [(conv(width, width * step**2), nn.PixelShuffle(step)) for step in steps_of(scale)]
        self.upsample = nn.Sequential(*(part for step in steps for part in step))
        self.conv_last = conv(width, in_channels)
        if long_skip != "none":
            nn.init.zeros_(self.conv_last.weight)
            nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]
        self.mean = RGB_MEAN if in_channels == 3 else (sum(RGB_MEAN) / 3,) * in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, c, h, w) in [0, 1] to (n, c, scale · h, scale · w)."""
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        first = self.conv_first((x - mean) * 255)
        out: Tensor = self.conv_last(self.upsample(self.conv_after_body(self.body(first)) + first)) / 255 + mean
        return out if self.long_skip == "none" else out - mean + enlarged(x, self.scale, self.long_skip)


class DoubleConv(nn.Module):
    """Two convolutions, each normalised and rectified."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            convolution = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h, w)."""
        out: Tensor = self.double_conv(x)
        return out


class Down(nn.Module):
    """Half the size, then two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h / 2, w / 2)."""
        out: Tensor = self.maxpool_conv(x)
        return out


class Up(nn.Module):
    """Twice the size, beside what had that size before, then two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = DoubleConv(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (n, in, h / 2, w / 2) and (n, out, h, w) to (n, out, h, w)."""
        out: Tensor = self.conv(torch.cat([skip, self.up(x)], 1))
        return out


class UNet(nn.Module):
    """A U-Net (arXiv 1505.04597) that estimates the noise; entries as in milesial's Pytorch-UNet."""

    def __init__(self, depth: int = 4, width: int = 64, in_channels: int = 3) -> None:
        super().__init__()
        self.depth, self.multiple = depth, 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.inc = DoubleConv(in_channels, width)
        for level in range(depth):
            self.add_module(f"down{level + 1}", Down(widths[level], widths[level + 1]))
        for level in range(depth):
            self.add_module(f"up{level + 1}", Up(widths[depth - level], widths[depth - level - 1]))
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(width, in_channels, 1)})

    def forward(self, x: Tensor) -> Tensor:
        """Map noisy images (n, c, h, w), whose sides are multiples of ``multiple``, to clean ones."""
        levels = [self.inc(x)]
        for level in range(self.depth):
            levels.append(self.get_submodule(f"down{level + 1}")(levels[-1]))
        out = levels.pop()
        for level in range(self.depth):
            out = self.get_submodule(f"up{level + 1}")(out, levels.pop())
        clean: Tensor = x - self.outc["conv"](out)
        return clean


def enlarged(images: Tensor, scale: int, mode: str) -> Tensor:
    """Images (n, c, h, w) made larger without a network."""
    return F.interpolate(images, scale_factor=float(scale), mode=mode, align_corners=False)
