"""Whether a class that runs on smaller parameters still cuts where it should: sizes and starts of every operator."""

from __future__ import annotations

from itertools import accumulate, pairwise, zip_longest

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.survivors import SurvivorMap
from metaprune_cli.graph.trace.labels import squeeze_constant, varying
from metaprune_cli.graph.trace.record import Recording, Step, Value

aten = torch.ops.aten
_CUTS = {
    aten.slice: 1,
    aten.select: 1,
    aten.unbind: 1,
    aten.split: 2,
    aten.split_with_sizes: 2,
}
"""Operators that cut a tensor along one dimension, and where in their arguments that dimension is."""


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
        if (mask := _lost_along(old, survivors)) is not None and not _cuts_alike(old, new, before, after, mask):
            return f"{old.operator.overloadpacket} starts at another neuron than it did"
    return None


def cut_elsewhere(before: Recording, after: Recording, graph: NeuronGraph, kept: Tensor) -> str | None:
    """The same for programs that depend on data, whose sizes do too: only what is cut out of neurons is compared.

    Where the two have run different operators, nothing that loses neurons may be cut from then on.
    """
    survivors = SurvivorMap(graph, kept)
    together = True
    for old, new in zip_longest(before.steps, after.steps[: len(before.steps)]):
        together = together and new is not None and new.operator is old.operator
        mask = _lost_along(old, survivors)
        if mask is not None and not (together and _cuts_alike(old, new, before, after, mask)):
            return f"{old.operator.overloadpacket} takes another part of the neurons than it took"
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


def _lost_along(step: Step, survivors: SurvivorMap) -> Tensor | None:
    """What is left along the dimension that an operator cuts; None if that is all, or nothing is cut."""
    place = _CUTS.get(step.operator.overloadpacket)
    if place is None:
        return None
    source = step.args[0]
    assert isinstance(source, Value)
    label, stays = step.labels.get(source.number), _stays(step, source.number, survivors)
    dim = step.args[place] if len(step.args) > place else 0
    return stays.get(dim % label.dim()) if stays and isinstance(label, Tensor) else None


def _cuts_alike(old: Step, new: Step, before: Recording, after: Recording, mask: Tensor) -> bool:
    """Whether the pieces are, in what is left of the dimension, what is left of the pieces."""
    pieces, found = _pieces(old, before, mask.numel()), _pieces(new, after, int(mask.sum()))
    if pieces is None or found is None:
        return False  # every second of fewer neurons are others
    return [(int(mask[:start].sum()), int(mask[:end].sum())) for start, end in pieces] == found


def _pieces(step: Step, recording: Recording, size: int) -> list[tuple[int, int]] | None:
    """The ranges that an operator cuts out of a dimension of this size; None if it leaves out some in between."""
    name, args = step.operator.overloadpacket, step.args
    if name is aten.unbind:
        return [(place, place + 1) for place in range(size)]
    if name is aten.select:
        return [(args[2] % size, args[2] % size + 1)]
    if name is aten.slice:
        start, end, by = slice(*(*args[2:], None, None, None)[:3]).indices(size)
        return [(start, max(start, end))] if by == 1 else None
    dim = args[2] if len(args) > 2 else 0
    sizes = [recording.shapes[number][dim] for number in step.outputs if number is not None]
    return list(pairwise(accumulate(sizes, initial=0)))
