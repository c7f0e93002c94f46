"""Whether a class that runs on smaller parameters still cuts where it should: sizes and starts, operator by operator."""

from __future__ import annotations

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.labels import squeeze_constant
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.record import Recording, Step, Value
from metaprune_cli.graph.survivors import SurvivorMap, Survivors

aten = torch.ops.aten


def misplaced(before: Recording, after: Recording, graph: NeuronGraph, kept: Tensor) -> str | None:
    """The first operator whose output has not the size of what survives, or that cuts elsewhere; None if there is none.

    ``x[:, :4]`` runs on fewer channels too, but what it takes are others.

    Args:
        before: the program as it was traced, with labels.
        after: the program of the smaller class, the same operators in the same order.
        graph: the structure.
        kept: which units stay.
    """
    survivors = SurvivorMap(graph, kept)
    for old, new in zip(before.steps, after.steps, strict=True):
        for number, smaller in zip(old.outputs, new.outputs, strict=True):
            stays = None if number is None else _stays(old, number, survivors)
            if stays is None or number is None or smaller is None:
                continue
            if tuple(after.values[smaller].shape) != _sizes(before.values[number], stays):
                return f"{old.operator.overloadpacket} takes another part of the neurons than it took"
        if old.operator in (aten.slice.Tensor, aten.select.int) and not _starts_alike(old, new, before, survivors):
            return f"{old.operator.overloadpacket} starts at another neuron than it did"
    return None


def _stays(step: Step, number: int, survivors: SurvivorMap) -> Survivors | None:
    """What is left of a value; None where (part of) it is constant: nobody says how large that should be."""
    label = step.labels.get(number)
    if not isinstance(label, Tensor) or label.numel() == 0 or not bool((squeeze_constant(label) > 0).all()):
        return None
    try:
        return survivors.of(label, label.dim())
    except NumericsError:
        return None


def _sizes(value: Tensor, stays: Survivors) -> tuple[int, ...]:
    return tuple(size if mask is None else int(mask.sum()) for size, mask in zip(value.shape, stays, strict=True))


def _starts_alike(old: Step, new: Step, before: Recording, survivors: SurvivorMap) -> bool:
    source = old.args[0]
    assert isinstance(source, Value)
    stays = _stays(old, source.number, survivors)
    dim = old.args[1] if len(old.args) > 1 else 0
    mask = None if stays is None else stays[dim]
    if mask is None or len(old.args) < 3 or old.args[2] is None:
        return True
    start, found = old.args[2], new.args[2]
    start += mask.numel() if start < 0 else 0
    found += int(mask.sum()) if found < 0 else 0
    return int(mask[:start].sum()) == found
