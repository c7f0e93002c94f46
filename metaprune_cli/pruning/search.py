"""How much each family loses, searched for: what is left of a model is asked how well it still does."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune_cli.graph.units import Units

SPREAD, LEAST, MOST = 0.4, 0.1, 0.8
"""Of the shifts that are tried: at first, and between what it stays."""
WIDER, NARROWER = 1.3, 0.95
"""After a trial that was better, and after one that was not: about one in five is (Rechenberg's rule)."""


def searched(
    units: Units,
    scores: Float[Tensor, " units"],
    loss: Callable[[Tensor], float],
    trials: int,
    *,
    seed: int = 0,
    on_trial: Callable[[float], None] | None = None,
) -> Float[Tensor, " units"]:
    """The scores, family by family times a factor, with which what stays in a global ranking does best.

    Which units of a family go first is left to the scores; the search is for how many, by an evolution strategy with
    one parent and one child on the logarithms of the factors. Start from ranks (the normaliser ``rank``), which are
    the same share of every family: what is found is then no worse by ``loss`` than that.

    Args:
        units: of the model.
        scores: not negative.
        loss: of what stays when units are ranked by such scores; the lower, the better, and NaN the worst.
        trials: how often it is asked, beside once for the scores as they are.
        seed: of the trials.
        on_trial: is told the lowest loss so far, after every trial.
    """
    generator = torch.Generator().manual_seed(seed)
    lowest, shifts, spread = loss(scores), torch.zeros(len(units.families)), SPREAD
    best = scores
    for _ in range(trials):
        tried = shifts + spread * torch.randn(len(shifts), generator=generator)
        candidate = scores * tried.exp()[units.family_of]
        found = loss(candidate)
        if found < lowest or math.isnan(lowest):
            lowest, shifts, best, spread = found, tried, candidate, min(spread * WIDER, MOST)
        else:
            spread = max(spread * NARROWER, LEAST)
        if on_trial is not None:
            on_trial(lowest)
    return best
