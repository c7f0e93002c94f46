"""The smallest go: by number, among single weights or tiles; and by place, N of every M."""

from __future__ import annotations

from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CHUNK = 2**22  # groups of N:M sorted at a time: sorting takes several times their memory


def count_of(sparsity: float, total: int) -> int:
    """The whole number nearest to a fraction of ``total``, as ``torch.nn.utils.prune`` has it; one always stays."""
    return min(round(Fraction(str(sparsity)) * total), total - 1)


def smallest(scores: Float[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """True for exactly ``count`` of the smallest scores; of equal ones the first stay.

    Args:
        scores: finite.
        count: 0 to n.
    """
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(count).values
    going = scores < threshold
    ties = (scores == threshold).nonzero().flatten()
    going[ties[len(ties) - (count - int(going.sum())) :]] = True
    return going


def largest_of_groups(rows: Float[Tensor, "rows columns"], kept: int, group: int) -> Bool[Tensor, "rows columns"]:
    """True for the ``kept`` largest of every ``group`` neighbours along a row; of equal ones the first."""
    stays = [
        torch.zeros_like(part, dtype=torch.bool).scatter_(
            1, part.argsort(dim=1, descending=True, stable=True)[:, :kept], True
        )
        for part in rows.reshape(-1, group).split(CHUNK)
    ]
    return torch.cat(stays).view(rows.shape)


def norms_of_tiles(rows: Float[Tensor, "rows columns"], height: int, width: int) -> Float[Tensor, "tall wide"]:
    """The L2 norm of every tile; of a single weight its magnitude, which no square can round to zero."""
    if height == width == 1:
        return rows
    tiles = rows.reshape(rows.size(0) // height, height, rows.size(1) // width, width)
    return tiles.square().sum((1, 3)).sqrt()


def spread(tiles: Bool[Tensor, "tall wide"], height: int, width: int) -> Bool[Tensor, "rows columns"]:
    """What holds of a tile, for each of its weights."""
    return tiles.repeat_interleave(height, 0).repeat_interleave(width, 1)
