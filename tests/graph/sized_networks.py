"""Networks whose code computes with the sizes of its input, as those that restore images and read text do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sized(NamedTuple):
    """A network, its example, and other inputs that its class takes."""

    make: Callable[[], nn.Module]
    example: tuple[int, ...]
    others: tuple[tuple[int, ...], ...]
    step: int = 1


class Shuffled(nn.Module):
    """Pixels from channels, by hand, over an enlarged input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu())
        b, c, h, w = y.shape
        y = y.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)
        return y + F.interpolate(x, size=(2 * h, 2 * w), mode="bilinear")


class Windows(nn.Module):
    """Attention in windows, the image padded to a multiple of them and cut again; ``around``: on both sides."""

    def __init__(self, size: int, *, pads: bool = True, around: bool = False) -> None:
        super().__init__()
        self.size, self.pads, self.around = size, pads, around
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        height, width, s = x.shape[2], x.shape[3], self.size
        y = stem = self.stem(x)
        down, right = -height % s, -width % s
        top, left = (down // 2, right // 2) if self.around else (0, 0)
        if self.pads:
            y = F.pad(y, (left, right - left, top, down - top))
        b, c, h, w = y.shape
        t = y.permute(0, 2, 3, 1).view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        n, tokens, c = t.shape
        q, k, v = self.qkv(self.norm(t)).reshape(n, tokens, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        t = self.out(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, c))
        t = t.view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c).permute(0, 3, 1, 2)
        return self.head(t[:, :, top : top + height, left : left + width] + stem)


class Interpolated(nn.Module):
    """A small ViT whose table of positions is stretched to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24), nn.Linear(8, 3)
        self.token, self.table = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 16, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        b, c, h, w = y.shape
        table = F.interpolate(self.table.reshape(1, 4, 4, c).permute(0, 3, 1, 2), size=(h, w), mode="bicubic")
        y = torch.cat([self.token.expand(b, -1, -1), (y + table).flatten(2).transpose(1, 2)], 1)
        q, k, v = self.qkv(y).view(b, h * w + 1, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        y = y + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, c)
        return self.head(y[:, 0])


class Joined(nn.Module):
    """A U-Net that meets its own sizes again only on multiples of four."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1)
        self.c, self.d = nn.Conv2d(8, 12, 3, 2, 1), nn.ConvTranspose2d(12, 8, 2, 2)
        self.e, self.head = nn.ConvTranspose2d(16, 6, 2, 2), nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        b = self.b(a).relu()
        return self.head(torch.cat([self.e(torch.cat([self.d(self.c(b).relu()), b], 1)), a], 1))


class Measured(nn.Module):
    """Sizes among numbers and tensors: a mean written out, coordinates, a crop, a literal."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        b, c, h, w = y.shape
        y = y - y.view(b, c, h * w).sum(2).view(b, c, 1, 1) / (h * w)
        y = y * torch.linspace(0, 1, w, device=x.device) + torch.tensor([h, w]).to(y).prod() ** -0.5
        return self.b(y[:, :, : h // 4 * 4] * (1 / w))


NETWORKS = {
    "pixels from channels": Sized(Shuffled, (1, 3, 8, 8), ((2, 3, 8, 8), (1, 3, 9, 14), (1, 3, 5, 32))),
    "padded windows": Sized(lambda: Windows(4), (1, 3, 8, 8), ((2, 3, 8, 8), (1, 3, 9, 14), (1, 3, 5, 32))),
    "windows of 3": Sized(lambda: Windows(3), (1, 3, 8, 8), ((2, 3, 8, 8), (1, 3, 9, 14), (1, 3, 5, 32))),
    "padded around": Sized(lambda: Windows(4, around=True), (1, 3, 8, 8), ((2, 3, 9, 14), (1, 3, 7, 5), (1, 3, 8, 3))),
    "windows": Sized(lambda: Windows(4, pads=False), (1, 3, 8, 8), ((2, 3, 8, 8), (1, 3, 12, 4), (1, 3, 20, 8)), 4),
    "stretched positions": Sized(Interpolated, (1, 3, 16, 16), ((2, 3, 16, 16), (1, 3, 20, 32), (1, 3, 9, 31))),
    "a U-Net": Sized(Joined, (1, 3, 16, 16), ((2, 3, 16, 16), (1, 3, 20, 32), (1, 3, 8, 12)), 4),
    "sizes as numbers": Sized(Measured, (1, 3, 8, 8), ((2, 3, 8, 8), (1, 3, 9, 14), (1, 3, 7, 32))),
}
