"""Whether a class that runs on smaller parameters still cuts where it should: sizes and starts of every operator."""

from __future__ import annotations

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.labels import squeeze_constant, varying
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.record import Recording, Step, Value
from metaprune_cli.graph.survivors import SurvivorMap

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
            if stays is not None and smaller is not None and not _fits(after.values[smaller], stays):
                return f"{old.operator.overloadpacket} takes another part of the neurons than it took"
        if old.operator in (aten.slice.Tensor, aten.select.int) and not _starts_alike(old, new, survivors):
            return f"{old.operator.overloadpacket} starts at another neuron than it did"
    return None


def _stays(step: Step, number: int, survivors: SurvivorMap) -> dict[int, Tensor] | None:
    """What is left of a value along every dimension that neurons lie along.

    None where (part of) it is constant: nobody says how large that should be.
    """
    label = step.labels.get(number)
    if not isinstance(label, Tensor) or label.numel() == 0 or not bool((squeeze_constant(label) > 0).all()):
        return None
    try:
        found = survivors.of(label, label.dim())
    except NumericsError:
        return None
    return {d: mask for d in varying(label) if (mask := found[d]) is not None}


def _fits(value: Tensor, stays: dict[int, Tensor]) -> bool:
    return all(value.size(d) == int(mask.sum()) for d, mask in stays.items())


def _starts_alike(old: Step, new: Step, survivors: SurvivorMap) -> bool:
    source = old.args[0]
    assert isinstance(source, Value)
    stays = _stays(old, source.number, survivors)
    dim = old.args[1] if len(old.args) > 1 else 0
    mask = (stays or {}).get(dim)
    if mask is None:
        return True
    if len(old.args) > 4 and old.args[4] != 1:
        return False  # every second of fewer neurons are others
    if len(old.args) < 3 or old.args[2] is None:
        return True
    start, found = old.args[2], new.args[2]
    start += mask.numel() if start < 0 else 0
    found += int(mask.sum()) if found < 0 else 0
    return bool(int(mask[:start].sum()) == found)
