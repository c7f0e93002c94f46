"""The layers of random networks that work on tokens (N, T, C): attention above all, as people write it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from layers import WIDTHS, Do, Scale, Step, activation, cut, parts
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Attention from ``x`` to ``context`` (or to itself), with projections and products written in one of several ways.

    ``packed``: q, k and v from one projection, cut by view ("view") or by chunk ("chunk"); "separate" otherwise.
    ``product``: "sdpa", "matmul", "einsum", or "linear" (no softmax, keys times values first).
    ``stored``: the head size is a number in Python, else it is derived from the width where that is possible.
    """

    def __init__(self, width: int, context: int, heads: int, dim: int, packed: str, product: str, stored: bool) -> None:
        super().__init__()
        self.heads, self.packed, self.product = heads, packed, product
        self.dim = dim if stored else -1
        inner = heads * dim
        if packed == "separate":
            self.q, self.k, self.v = nn.Linear(width, inner), nn.Linear(context, inner), nn.Linear(context, inner)
        else:
            self.qkv = nn.Linear(width, 3 * inner, bias=stored)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        n, t, _ = x.shape
        if self.packed == "view":
            q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        else:
            source = x if context is None else context
            whole = self.qkv(x).chunk(3, -1) if self.packed == "chunk" else (self.q(x), self.k(source), self.v(source))
            q, k, v = (p.reshape(n, p.size(1), self.heads, self.dim).transpose(1, 2) for p in whole)
        return self.out(self.mix(q, k, v).transpose(1, 2).flatten(2))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, H, T, d), (N, H, S, d), (N, H, S, d) → (N, H, T, d)."""
        if self.product == "sdpa":
            return F.scaled_dot_product_attention(q, k, v)
        if self.product == "linear":
            return q.sigmoid() @ (k.sigmoid().transpose(-1, -2) @ v)
        if self.product == "einsum":
            return torch.einsum("nhts,nhsd->nhtd", torch.einsum("nhtd,nhsd->nhts", q, k).softmax(-1), v)
        return (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v

    def extra_repr(self) -> str:
        return f"heads={self.heads}, dim={self.dim}, {self.packed}, {self.product}"


class Grouped(nn.Module):
    """Grouped-query attention: every key and value head serves two query heads."""

    def __init__(self, width: int, dim: int, by_repeat: bool) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(width, 4 * dim), nn.Linear(width, 4 * dim), nn.Linear(4 * dim, width)
        self.dim, self.by_repeat = dim, by_repeat

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, 4, self.dim).transpose(1, 2)
        k, v = (p.view(n, t, 2, self.dim).transpose(1, 2) for p in self.kv(x).chunk(2, -1))
        if self.by_repeat:
            k, v = (p.repeat_interleave(2, 1) for p in (k, v))
        else:
            k, v = (p[:, :, None].expand(n, 2, 2, t, self.dim).reshape(n, 4, t, self.dim) for p in (k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1))


class Multihead(nn.Module):
    """The attention that torch has."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Mixer(nn.Module):
    """A linear map over the tokens, the same for every channel."""

    def __init__(self, tokens: int, inner: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(tokens, inner), nn.Linear(inner, tokens)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.first(x.transpose(1, 2)).relu()).transpose(1, 2)


class ClassToken(nn.Module):
    """One more token, a parameter, before the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.size(0), -1, -1), x], 1)


def linear(x: Tensor, s: Step) -> nn.Module:
    """a: width; b: bias."""
    return nn.Linear(x.size(-1), WIDTHS[s.a % 4], bias=s.b % 4 != 3)


def attention(x: Tensor, s: Step) -> nn.Module:
    """a: heads and their size; b: projections; c: products."""
    width, heads, dim = x.size(-1), 1 + s.a % 2, (2, 3)[s.a // 2 % 2]
    packed = ("separate", "view", "chunk")[s.b % 3]
    product = ("sdpa", "matmul", "einsum", "linear")[s.c % 4]
    stored = s.b // 3 % 2 == 0 or packed == "view"
    return Attention(width, width, heads, dim, packed, product, stored)


def other_attention(x: Tensor, s: Step) -> nn.Module:
    """a: which one; b: how."""
    width = x.size(-1)
    if s.a % 2:
        return Grouped(width, 2, by_repeat=s.b % 2 == 0)
    return Multihead(width, 2 if width % 2 == 0 else 1)


def encoder(x: Tensor, s: Step) -> nn.Module:
    """torch's own layer of a transformer. a: inner width; b: norm first or last."""
    width = x.size(-1)
    heads = 2 if width % 2 == 0 else 1
    return nn.TransformerEncoderLayer(width, heads, WIDTHS[s.a % 4], 0.0, batch_first=True, norm_first=s.b % 2 == 0)


def token_norm(x: Tensor, s: Step) -> nn.Module:
    """a: which one."""
    kinds = (
        nn.LayerNorm,
        lambda width: nn.RMSNorm(width, eps=1e-5),  # by default that of the type, which a program keeps
        lambda width: nn.LayerNorm(width, elementwise_affine=False),
    )
    return kinds[s.a % 3](x.size(-1))


def token_scale(x: Tensor, s: Step) -> nn.Module:
    """a: added or multiplied; b: per channel, or per token and channel."""
    return Scale((x.size(1), x.size(2)) if s.b % 2 else (x.size(2),), add=s.a % 2 == 0)


def mixer(x: Tensor, s: Step) -> nn.Module:
    """a: inner width."""
    return Mixer(x.size(1), WIDTHS[s.a % 4])


def class_token(x: Tensor, s: Step) -> nn.Module:
    """No choice."""
    return ClassToken(x.size(-1)) if x.size(1) < 12 else nn.Identity()


def token_move(x: Tensor, s: Step) -> nn.Module:
    """Tokens change places. a: how."""
    kinds = (
        Do("first token", lambda x: x[:, :1]),
        Do("roll", lambda x: x.roll(1, 1)),
        Do("flip", lambda x: x.flip(1)),
        Do("permute twice", lambda x: x.permute(1, 0, 2).contiguous().permute(1, 0, 2)),
        Do("mean and all", lambda x: torch.cat([x.mean(1, keepdim=True), x], 1)),
    )
    return kinds[s.a % len(kinds)]


TOKENS: dict[str, Callable[[Tensor, Step], nn.Module]] = {
    "linear": linear,
    "attention": attention,
    "other_attention": other_attention,
    "encoder": encoder,
    "token_norm": token_norm,
    "token_scale": token_scale,
    "mixer": mixer,
    "class_token": class_token,
    "token_move": token_move,
    "token_parts": lambda x, s: parts(x, s, dim=-1),
    "token_cut": lambda x, s: cut(x, s, dim=-1),
    "token_activation": lambda x, s: nn.Identity() if isinstance(activation(x, s), nn.PReLU) else activation(x, s),
}
"""Layers of tokens (N, T, C)."""
