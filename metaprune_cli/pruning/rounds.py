"""Pruning in several rounds: how far each of them goes, and what is left to go of each family."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from metaprune_cli.config import Rounds
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.pruning.ranking import Limits

Room = Mapping[str, tuple[int, int, int]]
"""By family: its units, how many of them may go, and how many must."""


def factors(total: float, rounds: int, schedule: Rounds) -> tuple[float, ...]:
    """How many times less there is to be after every round, the last one ``total`` times.

    geometric: every round takes the same share of what is left. linear: the same amount. cubic: much at first, less
    and less later, s_k = s (1 - (1 - k/n)^3) (Zhu and Gupta, arXiv 1710.01878).
    """
    parts = [k / rounds for k in range(1, rounds + 1)]
    if schedule == "geometric":
        return tuple(total**part for part in parts)
    gone = 1 - 1 / total
    shares = parts if schedule == "linear" else [1 - (1 - part) ** 3 for part in parts]
    return tuple(1 / (1 - gone * share) for share in shares)


def room_of(graph: NeuronGraph, limits: Limits) -> Room:
    """What may go of each family of the whole model, all rounds together."""
    rows = zip(graph.units.families, limits.most.tolist(), limits.least.tolist(), strict=True)
    return {family.name: (len(family.units), most, least) for family, most, least in rows}


def limits_left(graph: NeuronGraph, limits: Limits, room: Room) -> Limits:
    """The limits of one round: of what may and must go, what earlier rounds took is taken off.

    Args:
        graph: of what is left after them.
        limits: what would hold if that were a whole model; families that are not in ``room`` keep these.
        room: of the whole model.
    """
    most, least = limits.most.clone(), limits.least.clone()
    for number, family in enumerate(graph.units.families):
        if family.name in room:
            size, may, must = room[family.name]
            gone = size - len(family.units)
            most[number], least[number] = max(may - gone, 0), max(must - gone, 0)
    return Limits(most, torch.minimum(least, most), limits.multiple, limits.tied)
