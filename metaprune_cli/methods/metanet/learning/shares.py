"""Learning by example how much of every layer is to stay: the score head against plans that a search has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune_cli.errors import InputError
from metaprune_cli.graph.units import Units
from metaprune_cli.pruning import importance_at


@dataclass(frozen=True, eq=False)
class Example:
    """How far each family is to be lifted at one speed-up; shape (families,)."""

    speedup: float
    lifts: Float[Tensor, " families"]


def examples_of(units: Units, left: Sequence[tuple[float, Sequence[int]]]) -> tuple[Example, ...]:
    """How far each family is to be lifted for a global ranking to leave as many of it as some plans do.

    A unit of rank r, in (0, 1] within its family, stays where r · eˡ is above a threshold that all families share. Of a
    fraction k of the family that stays, the first has the rank 1 − k, so

        l = −log(1 − k) + constant,

    with k no nearer to 1 than half a unit.

    Args:
        units: of the model.
        left: of each plan the speed-up, and how many units of every family stay.

    Raises:
        InputError: a plan is not one of these families.
    """
    examples = []
    for speedup, plan in left:
        if len(plan) != len(units.families) or any(a > int(n) for a, n in zip(plan, units.sizes, strict=True)):
            raise InputError(
                "The plan is that of another model.",
                expected=f"numbers for {len(units.families)} families, none above {units.sizes.tolist()}",
                got=list(plan),
            )
        gone = 1 - torch.tensor(plan) / units.sizes
        examples.append(Example(speedup, -torch.maximum(gone, 0.5 / units.sizes).log()))
    return tuple(examples)


def imitation(units: Units, importance: Float[Tensor, "units ..."], examples: Sequence[Example]) -> Float[Tensor, ""]:
    """Mean square, over families and examples, of how far units' importance is from what is wanted, up to a constant.

    Every unit is asked for its family's lift, so that which of them go first stays what the weights say.

    Args:
        units: of the model.
        importance: what a score head adds to the logarithm of every unit's score; differentiable.
        examples: at least one.
    """
    family_of = units.family_of.to(importance.device)
    movable = movable_families(units).to(importance)
    weight = (movable / movable.sum() / units.sizes.to(importance))[family_of]
    total = importance.new_zeros(())
    for example in examples:
        error = importance_at(importance, example.speedup) - example.lifts.to(importance)[family_of]
        total = total + (weight * (error - (weight * error).sum()).square()).sum()
    return total / len(examples)


def movable_families(units: Units) -> Tensor:
    """Those that can lose units; bool, shape (families,)."""
    return torch.zeros(len(units.families)).index_add(0, units.family_of, units.prunable.float()) > 0
