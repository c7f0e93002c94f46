"""Ridge regression that chooses its own strength, and does nothing where nothing helps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""λ, relative to the mean square of the inputs."""


@dataclass(frozen=True, eq=False)
class Fit:
    """y ≈ x · change + shift; ``missing`` is the norm of what is not explained."""

    change: Float[Tensor, "groups k out"]
    shift: Float[Tensor, "groups 1 out"]
    missing: float


def fitted(
    x: Float[Tensor, "groups rows k"],
    y: Float[Tensor, "groups rows out"],
    held: Bool[Tensor, " rows"],
    *,
    centred: bool,
) -> Fit | None:
    """The change of a linear map that explains ``y``, one for every group; None if on ``held`` rows nothing is gained.

    Args:
        x: inputs; k may be 0, then only the shift is fitted.
        y: what is to be explained.
        held: rows that choose λ; all rows are used for the fit itself.
        centred: fit a shift as well.
    """
    unknowns, basis, x = x.size(2), None, x.double()
    middle = x.mean(1, keepdim=True) if centred else x.new_zeros(len(x), 1, unknowns)
    x = x - middle  # before sums of squares, which lose what is small beside a mean
    if unknowns > x.size(1):  # what is fitted lies in the span of the rows
        basis, upper = torch.linalg.qr(x.mT)
        x = upper.mT
    rest, others = (_Moments.of(x[:, rows], y[:, rows], unknowns) for rows in (~held, held))
    strength = _strength(rest, others, centred=centred)
    if strength is None:
        return None
    fit = _System.of(rest.with_(others), centred=centred).solved(strength)
    if fit.missing >= rest.with_(others).left_by(None):
        return None
    change = fit.change if basis is None else basis @ fit.change
    return replace(fit, change=change, shift=fit.shift - middle @ change)


def _strength(rest: _Moments, held: _Moments, *, centred: bool) -> float | None:
    """The λ that serves best on held rows; None if none is better than to do nothing."""
    if not held.rows or not rest.rows:
        return STRENGTHS[len(STRENGTHS) // 2]
    system = _System.of(rest, centred=centred)
    best, chosen = held.left_by(None), None
    for strength in STRENGTHS if rest.unknowns else STRENGTHS[:1]:
        error = held.left_by(system.solved(strength))
        if error < best:
            best, chosen = error, strength
    return chosen


@dataclass(frozen=True, eq=False)
class _Moments:
    """What a fit has to know of some rows, in double precision; sums over rows, of every group.

    Attributes:
        rows: how many there are.
        unknowns: how many inputs there are, before they were written in a smaller basis.
        x: Σ x, shape (groups, 1, k); ``y`` likewise.
        xx: Σ xᵀx; ``xy`` and ``yy`` (its diagonal alone, summed: shape (groups,)) likewise.
    """

    rows: int
    unknowns: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, unknowns: int) -> _Moments:
        x, y = x.double(), y.double()
        total_x, total_y = (v.sum(1, keepdim=True) for v in (x, y))
        return cls(x.size(1), unknowns, total_x, total_y, x.mT @ x, x.mT @ y, y.square().sum((1, 2)))

    def with_(self, other: _Moments) -> _Moments:
        """Those of both."""
        names = ("rows", "x", "y", "xx", "xy", "yy")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})

    def left_by(self, fit: Fit | None) -> float:
        """The norm of what is left of y when a fit has explained what it can; without one, of y."""
        total = self.yy.sum()
        if fit is not None:
            change, shift = fit.change, fit.shift
            total = total + (change * (self.xx @ change - 2 * self.xy)).sum()
            total = total + (shift * (self.rows * shift + 2 * (self.x @ change - self.y))).sum()
        return float(total.clamp_min(0).sqrt())


@dataclass(frozen=True, eq=False)
class _System:
    """The normal equations of all rows, about their means where a shift is fitted."""

    moments: _Moments
    mean_x: Tensor
    mean_y: Tensor
    gram: Tensor
    right: Tensor

    @classmethod
    def of(cls, moments: _Moments, *, centred: bool) -> _System:
        rows = max(moments.rows, 1)
        mean_x, mean_y = (v / rows if centred else torch.zeros_like(v) for v in (moments.x, moments.y))
        gram = moments.xx - rows * mean_x.mT @ mean_x
        return cls(moments, mean_x, mean_y, gram, moments.xy - rows * mean_x.mT @ mean_y)

    def solved(self, strength: float) -> Fit:
        unknowns = self.moments.unknowns
        gram, trace = self.gram.clone(), self.gram.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
        gram.diagonal(dim1=1, dim2=2).add_((strength * trace / max(unknowns, 1)).clamp_min(1e-12))
        change = torch.cholesky_solve(self.right, torch.linalg.cholesky(gram))
        fit = Fit(change, self.mean_y - self.mean_x @ change, 0.0)
        return replace(fit, missing=self.moments.left_by(fit))
