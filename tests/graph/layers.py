"""The layers that random networks are made of: each is chosen by a step's three small numbers and the shape it meets.

Every function takes the activation that arrives and a step, and answers with a module that accepts it, whatever the
numbers: so every recipe is a network, and a failing one can be made smaller without ever becoming invalid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (4, 6, 8, 12)
ROOM = 512
"""Activations of more elements per channel are not enlarged."""


@dataclass(frozen=True)
class Step:
    """One layer: what it is, and three small numbers that say how; every layer reads them in its own way."""

    op: str
    a: int = 0
    b: int = 0
    c: int = 0


class Do(nn.Module):
    """A function as a layer; ``label`` says which one when the network is printed."""

    def __init__(self, label: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.label, self.function = label, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.label


class Scale(nn.Module):
    """A parameter for every channel (or, with ``positions``, for every position too), multiplied or added."""

    def __init__(self, shape: tuple[int, ...], add: bool) -> None:
        super().__init__()
        self.parameter, self.add = nn.Parameter(torch.empty(shape)), add

    def forward(self, x: Tensor) -> Tensor:
        return x + self.parameter if self.add else x * self.parameter


class Parts(nn.Module):
    """Splits the channels, transforms the first part, and joins: by concatenation, as a gate, or not at all."""

    def __init__(self, dim: int, sizes: list[int] | int, join: str, inner: nn.Module | None) -> None:
        super().__init__()
        self.dim, self.sizes, self.join, self.inner = dim, sizes, join, inner

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(self.sizes, self.dim) if isinstance(self.sizes, int) else x.split(self.sizes, self.dim)
        first = parts[0] if self.inner is None else self.inner(parts[0])
        if self.join == "drop":
            return first
        if self.join == "gate":
            return first * parts[1].sigmoid()
        if self.join == "stairs":  # every part sees the one before it, as in Res2Net
            return torch.cat([first, *(a + b for a, b in zip(parts[1:], parts, strict=False))], self.dim)
        return torch.cat([*parts[1:], first], self.dim)

    def extra_repr(self) -> str:
        return f"{self.join} of {self.sizes}, dim={self.dim}"


def spatial(x: Tensor, *kinds: type[nn.Module]) -> type[nn.Module]:
    """The kind of module for as many positions' dimensions as ``x`` (N, C, …) has."""
    return kinds[x.dim() - 3]


def conv(x: Tensor, s: Step) -> nn.Module:
    """a: width; b: kernel 1–3, stride, bias; c: dilation, groups."""
    size, channels, width = min(x.shape[2:]), x.size(1), WIDTHS[s.a % 4]
    kernel = min((1, 3, 2)[s.b % 3], size)
    stride = 2 if s.b // 3 % 2 and size > 2 else 1
    dilation = 2 if s.c % 2 and size > 4 else 1
    groups = next(g for g in ((1, 2, 4, 1)[s.c // 2 % 4], 2, 1) if channels % g == width % g == 0)
    kind = spatial(x, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return kind(channels, width, kernel, stride, dilation * (kernel - 1) // 2, dilation, groups, bias=s.b < 6)


def depthwise(x: Tensor, s: Step) -> nn.Module:
    """a: channels out for one in; b: bias."""
    kind, channels = spatial(x, nn.Conv1d, nn.Conv2d, nn.Conv3d), x.size(1)
    many = 2 if s.a % 4 == 3 and channels <= 12 else 1
    return kind(channels, many * channels, 3, padding=1, groups=channels, bias=s.b % 2 == 0)


def transposed(x: Tensor, s: Step) -> nn.Module:
    """a: width; b: stride; c: groups."""
    kind, width = spatial(x, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), WIDTHS[s.a % 4]
    stride = 2 if s.b % 2 and x[0, 0].numel() * 4 <= ROOM // 4 else 1
    groups = 2 if s.c % 2 and x.size(1) % 2 == 0 else 1
    return kind(x.size(1), width, 2 if stride == 2 else 3, stride, padding=0 if stride == 2 else 1, groups=groups)


def batch_norm(x: Tensor, s: Step) -> nn.Module:
    """a: with scale and shift, or without."""
    return spatial(x, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)(x.size(1), affine=s.a % 4 != 3)


def instance_norm(x: Tensor, s: Step) -> nn.Module:
    """a: with scale and shift, or without; b: on its own or on running statistics."""
    if x[0, 0].numel() < 2:
        return nn.Identity()
    kind = spatial(x, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    return kind(x.size(1), affine=s.a % 2 == 0, track_running_stats=s.b % 2 == 1)


def group_norm(x: Tensor, s: Step) -> nn.Module:
    """a: how many groups; b: with scale and shift, or without."""
    channels = x.size(1)
    groups = next(g for g in ((2, 1, channels, 4)[s.a % 4], 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, affine=s.b % 4 != 3) if x.numel() > groups else nn.Identity()


def pool(x: Tensor, s: Step) -> nn.Module:
    """a: which one."""
    kinds = (
        spatial(x, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        spatial(x, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        spatial(x, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    )
    return kinds[s.a % 3](2) if min(x.shape[2:]) > 1 else nn.Identity()


def upsample(x: Tensor, s: Step) -> nn.Module:
    """a: nearest or linear."""
    if x[0, 0].numel() * 2 ** (x.dim() - 2) > ROOM:
        return nn.Identity()
    smooth = ("linear", "bilinear", "trilinear")[x.dim() - 3]
    return nn.Upsample(scale_factor=2, mode="nearest" if s.a % 2 == 0 else smooth)


def pixel_shuffle(x: Tensor, s: Step) -> nn.Module:
    """a: channels to positions, or back."""
    if x.dim() == 4 and s.a % 2 == 0 and x.size(1) % 4 == 0 and x[0, 0].numel() * 4 <= ROOM:
        return nn.PixelShuffle(2)
    if x.dim() == 4 and s.a % 2 == 1 and x.size(2) % 2 == x.size(3) % 2 == 0 and x.size(1) <= 12:
        return nn.PixelUnshuffle(2)
    return nn.Identity()


def channel_shuffle(x: Tensor, s: Step) -> nn.Module:
    """a: by view and transpose, or by the operator."""
    if x.size(1) % 2:
        return nn.Identity()
    if s.a % 2:
        return nn.ChannelShuffle(2)

    def shuffle(x: Tensor) -> Tensor:
        n, c, *positions = x.shape
        return x.view(n, 2, c // 2, *positions).transpose(1, 2).reshape(n, c, *positions)

    return Do("channel shuffle", shuffle)


def squeeze(x: Tensor, s: Step) -> nn.Module:
    """A gate from the mean over positions. a: inner width; b: by convolution or linear."""
    dims, inner = tuple(range(2, x.dim())), WIDTHS[s.a % 4]
    first, last = nn.Linear(x.size(1), inner), nn.Linear(inner, x.size(1))

    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = first, last

        def forward(self, x: Tensor) -> Tensor:
            gate = self.last(self.first(x.mean(dims)).relu()).sigmoid()
            return x * gate.reshape(*gate.shape, *(1,) * len(dims))

    return Squeeze()


def _inner(x: Tensor, dim: int, into: int, out: int) -> nn.Module:
    """A map from ``into`` to ``out`` channels at every position."""
    return nn.Linear(into, out) if dim == -1 else spatial(x, nn.Conv1d, nn.Conv2d, nn.Conv3d)(into, out, 1)


def parts(x: Tensor, s: Step, dim: int = 1) -> nn.Module:
    """a: halves, thirds or uneven; b: how they join; c: whether the first is transformed."""
    channels, join = x.size(dim), ("cat", "gate", "drop", "stairs")[s.b % 4]
    even = next((n for n in (2 + s.a % 2, 2, 3) if channels % n == 0), None)
    uneven = join in ("cat", "drop") and s.a % 4 >= 2 and channels > 2
    if even is None and not uneven:
        return nn.Identity()
    sizes: list[int] | int = [channels // 3, channels - channels // 3] if uneven or even is None else even
    first = channels // sizes if isinstance(sizes, int) else sizes[0]
    inner = _inner(x, dim, first, first) if s.c % 2 == 0 else None
    return Parts(dim, sizes, join, inner)


def cut(x: Tensor, s: Step, dim: int = 1) -> nn.Module:
    """A slice of the channels. a: where it starts; b: how many; c: by slice, narrow or select of every second."""
    channels = x.size(dim)
    start = s.a % channels
    length = min(1 + channels // 2 + s.b, channels - start)
    if s.c % 3 == 2 and channels > 2:
        return Do("every second channel", lambda x: x[:, ::2] if dim == 1 else x[..., ::2])
    if s.c % 3:
        return Do(f"narrow({dim}, {start}, {length})", lambda x: x.narrow(dim, start, length))
    if dim == 1:
        return Do(f"x[:, {start}:{start + length}]", lambda x: x[:, start : start + length])
    return Do(f"x[..., {start}:{start + length}]", lambda x: x[..., start : start + length])


def activation(x: Tensor, s: Step) -> nn.Module:
    """a, b: which one."""
    channels = x.size(1)
    kinds: tuple[Callable[[], nn.Module], ...] = (
        nn.ReLU,
        nn.GELU,
        nn.SiLU,
        nn.Tanh,
        nn.Sigmoid,
        lambda: nn.PReLU(1 if x.dim() == 3 and s.c % 2 else channels),
        lambda: nn.ReLU6(inplace=False),
        lambda: nn.LeakyReLU(0.1),
        nn.Hardswish,
        lambda: nn.Dropout(0.2),
        lambda: nn.Softmax(-1),
        lambda: Do("x / 2 + 1", lambda x: x / 2 + 1),
    )
    return kinds[(s.a + 4 * s.b) % len(kinds)]()


def move(x: Tensor, s: Step) -> nn.Module:
    """Positions change places, channels stay. a: how."""
    last = x.dim() - 1
    kinds = (
        Do("flip", lambda x: x.flip(last)),
        Do("roll", lambda x: x.roll(1, last)),
        Do("transpose", lambda x: x.transpose(2, last).contiguous()),
        Do("pad", lambda x: F.pad(x, (1, 0))),
        Do("reflect", lambda x: F.pad(x, (1, 1) * (x.dim() - 2), mode="replicate")),
    )
    return kinds[s.a % len(kinds)]


def channels_last_norm(x: Tensor, s: Step) -> nn.Module:
    """A LayerNorm over the channels of a map."""
    norm = nn.LayerNorm(x.size(1))

    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x.movedim(1, -1)).movedim(-1, 1)

    return ChannelsLast()


def map_scale(x: Tensor, s: Step) -> nn.Module:
    """a: added or multiplied; b: per channel, or per channel and position."""
    positions = tuple(x.shape[2:]) if s.b % 2 else (1,) * (x.dim() - 2)
    return Scale((x.size(1), *positions), add=s.a % 2 == 0)


MAPS: dict[str, Callable[[Tensor, Step], nn.Module]] = {
    "conv": conv,
    "depthwise": depthwise,
    "transposed": transposed,
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "pool": pool,
    "upsample": upsample,
    "pixel_shuffle": pixel_shuffle,
    "channel_shuffle": channel_shuffle,
    "squeeze": squeeze,
    "parts": parts,
    "cut": cut,
    "activation": activation,
    "move": move,
    "channels_last_norm": channels_last_norm,
    "map_scale": map_scale,
}
"""Layers of maps (N, C, positions…)."""
