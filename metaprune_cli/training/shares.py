"""Learning by example how much of every layer is to stay: the score head against plans that a search has found."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune_cli.errors import InputError
from metaprune_cli.graph.units import Units


def wanted_lifts(units: Units, plans: Sequence[Sequence[int]]) -> Float[Tensor, " families"]:
    """How far each family is to be lifted for a global ranking to leave as many of it as these plans do.

    A unit of rank r, in (0, 1] within its family, stays where r · eˡ is above a threshold that all families share. Of a
    fraction k of the family that stays, the first has the rank 1 − k, so

        l = −log(1 − k) + constant,

    with k no nearer to 1 than half a unit. The mean over the plans, each taken from its own mean.

    Args:
        units: of the model.
        plans: for each one how many units of every family stay.

    Raises:
        InputError: a plan is not one of these families.
    """
    movable = movable_families(units)
    total = torch.zeros(len(units.families))
    for plan in plans:
        if len(plan) != len(units.families) or any(a > int(n) for a, n in zip(plan, units.sizes, strict=True)):
            raise InputError(
                "The plan is that of another model.",
                expected=f"numbers for {len(units.families)} families, none above {units.sizes.tolist()}",
                got=list(plan),
            )
        gone = 1 - torch.tensor(plan) / units.sizes
        lifts = -torch.maximum(gone, 0.5 / units.sizes).log()
        total += lifts - lifts[movable].mean()
    return total / len(plans)


def imitation(
    units: Units, importance: Float[Tensor, " units"], wanted: Float[Tensor, " families"]
) -> Float[Tensor, ""]:
    """Mean square, over the families, of how far their units' importance is from what is wanted, but for what all share.

    Every unit is asked for its family's lift, so that which of them go first stays what the weights say.

    Args:
        units: of the model.
        importance: what a score head adds to the logarithm of every unit's score; differentiable.
        wanted: as :func:`wanted_lifts` says.
    """
    family_of = units.family_of.to(importance.device)
    movable = movable_families(units).to(importance)
    weight = (movable / movable.sum() / units.sizes.to(importance))[family_of]
    error = importance - wanted.to(importance)[family_of]
    return (weight * (error - (weight * error).sum()).square()).sum()


def movable_families(units: Units) -> Tensor:
    """Those that can lose units; bool, shape (families,)."""
    return torch.zeros(len(units.families)).index_add(0, units.family_of, units.prunable.float()) > 0
