"""How much each family loses, searched for: what is left of a model is asked how well it still does."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

SPREAD, LEAST, MOST = 0.4, 0.1, 0.8
"""Of the shifts that are tried: at first, and between what it stays."""
WIDER, NARROWER = 1.3, 0.95
"""After a trial that was better, and after one that was not: about one in five is (Rechenberg's rule)."""


def searched(
    families: int,
    loss: Callable[[Tensor], float],
    trials: int,
    *,
    seed: int = 0,
    on_trial: Callable[[float], None] | None = None,
) -> Float[Tensor, " families"]:
    """How far each family is to be lifted, so that what stays in a global ranking does best.

    A lift is added to the logarithms of the family's scores. Which units of a family go first is left to the scores;
    the search is for how many, by an evolution strategy with one parent and one child. Start from ranks (the normaliser
    ``rank``), which are the same share of every family: what is found is then no worse by ``loss`` than that.

    Args:
        families: how many there are.
        loss: of what stays with such lifts; the lower, the better, and NaN the worst.
        trials: how often it is asked, beside once for no lifts at all.
        seed: of the trials.
        on_trial: is told the lowest loss so far, after every trial.
    """
    generator = torch.Generator().manual_seed(seed)
    lifts, spread = torch.zeros(families), SPREAD
    lowest = loss(lifts)
    for _ in range(trials):
        tried = lifts + spread * torch.randn(families, generator=generator)
        found = loss(tried)
        if found < lowest or math.isnan(lowest):
            lowest, lifts, spread = found, tried, min(spread * WIDER, MOST)
        else:
            spread = max(spread * NARROWER, LEAST)
        if on_trial is not None:
            on_trial(lowest)
    return lifts
