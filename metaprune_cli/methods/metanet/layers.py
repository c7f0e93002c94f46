"""One message-passing layer: its weights and what it does per neuron. What it does per edge is a backend's business.

With n = LayerNorm(h), for an edge j -> i with state e (arXiv 2506.12041, section 3):

    message to i      r(nᵢ) ⊙ s(nⱼ) ⊙ e        r, s, a, b: a linear map, then SiLU
    h                += W · [mean, std, max, min] of the messages
    e                += a(nⱼ) ⊙ b(nᵢ) ⊙ e

and the same again, same weights, along the reversed edges with σ ⊙ e, σ = +1 on the first half of the dimensions and -1
on the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-5
LEAST_ROOT = math.sqrt(EPSILON)


@dataclass(frozen=True, eq=False)
class Gates:
    """What each neuron brings to the edges it meets, four times shape (n, h).

    Attributes:
        receive: r, at the end of an edge.
        send: s, at its start.
        source: a, at its start, for the edge's own update.
        destination: b, at its end.
    """

    receive: Tensor
    send: Tensor
    source: Tensor
    destination: Tensor


def normalise(h: Float[Tensor, "n h"]) -> Float[Tensor, "n h"]:
    """LayerNorm without affine parameters."""
    normal: Tensor = nn.functional.layer_norm(h, list(h.shape[-1:]))
    return normal


def deviation(variance: Tensor) -> Tensor:
    """A standard deviation that is zero, with a finite slope, where the variance is."""
    return (variance + EPSILON).sqrt() - LEAST_ROOT


class MessageLayer(nn.Module):
    """The weights of one layer, and its arithmetic on neurons."""

    sigma: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, 4 * hidden)
        self.mix = nn.Linear(4 * hidden, hidden)
        sigma = torch.ones(hidden)
        sigma[hidden // 2 :] = -1
        self.register_buffer("sigma", sigma, persistent=False)

    def gates(self, h: Float[Tensor, "n h"]) -> Gates:
        """r, s, a, b of every neuron."""
        return Gates(*nn.functional.silu(self.gate(normalise(h))).chunk(4, dim=-1))

    def update(self, h: Float[Tensor, "n h"], heard: Float[Tensor, "n h4"]) -> Float[Tensor, "n h"]:
        """The neurons' next state, from the sum of what they heard along the edges and along the reversed edges.

        Both go through the same linear map, once for the two of them.
        """
        return h + nn.functional.linear(heard, self.mix.weight, 2 * self.mix.bias)
