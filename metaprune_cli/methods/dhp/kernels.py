"""From the products of latents to the kernels of one block of edges: two forms of the same function.

Li, Gu, Zhang, Van Gool, Timofte: DHP, arXiv 2003.13683, section 3.2. With Z the product of the latents at an edge's two
ends, a kernel of t taps is, through an embedding of size m,

    E_m = W1_m · (Z + B0) + B1_m,    K_t = Σ_m W2_tm · E_m + B2_t

which for every edge is linear in Z: K_t = Z · P_t + Q_t. The second is the compact form.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Compact(nn.Module):
    """K = Z · P + Q.

    Attributes:
        slope: P, shape (groups, out, in, taps).
        offset: Q, alike.
    """

    def __init__(self, slope: Float[Tensor, "groups out in taps"]) -> None:
        """Begin with P, and Q = 0."""
        super().__init__()
        self.slope = nn.Parameter(slope.clone())
        self.offset = nn.Parameter(torch.zeros_like(slope))

    def forward(self, products: Float[Tensor, "groups out in"]) -> Float[Tensor, "groups out in taps"]:
        """The kernels."""
        return torch.addcmul(self.offset, products[..., None], self.slope)


class Embedded(nn.Module):
    """The published form, with more parameters for the same functions.

    Attributes:
        shift: B0, shape (groups, out, in).
        inner: W1, shape (groups, out, in, m); ``inner_shift``: B1, alike.
        outer: W2, shape (groups, out, in, taps, m).
        offset: B2, shape (groups, out, in, taps).
    """

    def __init__(self, slope: Float[Tensor, "groups out in taps"], size: int, generator: torch.Generator) -> None:
        """Begin with K = Z · slope: W1 of length one in a direction of chance, W2 = slope · W1, and no shifts.

        Of length one, so that a step along the gradient changes a kernel as much as it would change plain weights.
        """
        super().__init__()
        edges = slope.shape[:3]
        drawn = torch.randn(*edges, size, generator=generator).to(slope)
        inner = drawn / drawn.norm(dim=-1, keepdim=True).clamp_min(1e-6 / math.sqrt(size))
        self.shift = nn.Parameter(slope.new_zeros(edges))
        self.inner = nn.Parameter(inner)
        self.inner_shift = nn.Parameter(torch.zeros_like(inner))
        self.outer = nn.Parameter(slope[..., None] * inner[:, :, :, None])
        self.offset = nn.Parameter(torch.zeros_like(slope))

    def forward(self, products: Float[Tensor, "groups out in"]) -> Float[Tensor, "groups out in taps"]:
        """The kernels."""
        embedded = torch.addcmul(self.inner_shift, (products + self.shift)[..., None], self.inner)
        return (self.outer * embedded[:, :, :, None]).sum(-1) + self.offset

    @torch.no_grad()
    def compact(self) -> Compact:
        """The same function in the other form."""
        one = torch.ones_like(self.shift)
        offset = self(torch.zeros_like(one))
        found = Compact(self(one) - offset)
        found.offset.copy_(offset)
        return found
