"""Ridge regression that chooses its own strength, and does nothing where nothing helps."""

from __future__ import annotations

from dataclasses import dataclass

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
    strength = _strength(x, y, held, centred=centred)
    if strength is None:
        return None
    fit = _System.of(x, y, centred=centred).solved(strength)
    return fit if fit.missing < float(y.double().norm()) else None


def _strength(x: Tensor, y: Tensor, held: Tensor, *, centred: bool) -> float | None:
    """The λ that serves best; None if none is better than to do nothing."""
    if not bool(held.any()) or bool(held.all()):
        return STRENGTHS[len(STRENGTHS) // 2]
    system, test, truth = (
        _System.of(x[:, ~held], y[:, ~held], centred=centred),
        x[:, held].double(),
        y[:, held].double(),
    )
    best, chosen = float(truth.norm()), None
    for strength in STRENGTHS if x.size(2) else STRENGTHS[:1]:
        fit = system.solved(strength)
        error = float((truth - test @ fit.change - fit.shift).norm())
        if error < best:
            best, chosen = error, strength
    return chosen


@dataclass(frozen=True, eq=False)
class _System:
    """In double precision, the smaller of two systems: of k unknowns, or of as many as there are rows."""

    x: Tensor
    y: Tensor
    mean_x: Tensor
    mean_y: Tensor
    gram: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, *, centred: bool) -> _System:
        x, y = x.double(), y.double()
        means = (v.mean(1, keepdim=True) if centred else v.new_zeros(len(v), 1, v.size(2)) for v in (x, y))
        mean_x, mean_y = means
        x, y = x - mean_x, y - mean_y
        gram = x.transpose(1, 2) @ x if x.size(2) <= x.size(1) else x @ x.transpose(1, 2)
        return cls(x, y, mean_x, mean_y, gram)

    def solved(self, strength: float) -> Fit:
        unknowns = self.x.size(2)
        gram, trace = self.gram.clone(), self.gram.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
        gram.diagonal(dim1=1, dim2=2).add_((strength * trace / max(unknowns, 1)).clamp_min(1e-12))
        half = torch.linalg.cholesky(gram)
        if unknowns <= self.x.size(1):
            change = torch.cholesky_solve(self.x.transpose(1, 2) @ self.y, half)
        else:
            change = self.x.transpose(1, 2) @ torch.cholesky_solve(self.y, half)
        missing = float((self.y - self.x @ change).norm())
        return Fit(change, self.mean_y - self.mean_x @ change, missing)
