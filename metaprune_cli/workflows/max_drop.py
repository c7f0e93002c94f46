"""The largest speed-up that costs no more than is allowed: which are tried, and what is said where none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metaprune_cli.errors import TargetError
from metaprune_cli.tasks import Metric

SMALLER = (1.0, 0.75, 0.5, 0.25)
"""Powers of the one speed-up that is given, in the order in which they are tried where it costs too much."""


def tried(speedups: Sequence[float]) -> tuple[float, ...]:
    """The speed-ups in the order in which they are tried: the largest come first; of one, smaller ones follow."""
    if len(speedups) == 1:
        return tuple(round(speedups[0] ** power, 2) for power in SMALLER)
    return tuple(sorted(speedups, reverse=True))


def too_costly(costs: Mapping[float, float], limit: float, metric: Metric, where: object) -> TargetError:
    """What is raised where every speed-up costs too much.

    Args:
        costs: by speed-up, how much worse the metric is on the validation images.
        limit: how much worse it may be.
        metric: the task's first.
        where: the model, for people.
    """
    return TargetError(
        "Every speed-up costs more accuracy than allowed, on the validation images.",
        expected=f"at most {limit:g} {metric.difference_unit} of {metric.name}",
        got=", ".join(f"{speedup:g}x: {metric.write(cost)}" for speedup, cost in costs.items()),
        where=where,
        next_step="use a smaller --speedup, more --epochs, or a larger --max-drop",
    )
