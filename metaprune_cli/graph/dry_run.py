"""Why a removal cannot be followed, told without computing it: by the model's class, or by its program, rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from types import MappingProxyType

import torch
from torch import Tensor

from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.arguments import found_in
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.placement import cut_elsewhere, misplaced
from metaprune_cli.graph.program.rewrite import rewrite
from metaprune_cli.graph.resize import copied, fill_, own_copies, resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.trace.passes import Pass, Skeleton, record_pass
from metaprune_cli.graph.trace.record import READ, Recording, Step, Value
from metaprune_cli.graph.widths import Widths, set_widths_

aten = torch.ops.aten
Passes = Sequence[tuple[Pass, Recording]]


def class_failure(
    graph: NeuronGraph, skeleton: Skeleton, passes: Passes, kept: Tensor, widths: Widths = MappingProxyType({})
) -> str | None:
    """Why the model's class, given smaller parameters, does not compute what it should; None if it does.

    Where nothing depends on data, it must run the very operators that it ran before, with the same constants in them: a
    class that derives an attention's scale from the width of its heads, say, does not follow. ``widths``: what its
    attributes become.
    """
    try:
        small = Skeleton(copied(skeleton.model), skeleton.real, skeleton.known)
        tensors = slice_tensors(graph, kept)
        resize_(small.model, {name: tuple(t.shape) for name, t in tensors.items()})
        set_widths_(small.model, widths)
        if skeleton.real:  # what control flow depends on
            fill_(small.model, own_copies(tensors, graph.tensors))
        for given, before in passes:
            after = record_pass(small, given, graph.aliases)
            if _shapes(after, exact=not skeleton.real) != _shapes(before, exact=not skeleton.real):
                return "its removal changes the shape of the output"
            was, now = _without_copies(before), _without_copies(after)
            if _constants_differ(was, now, before.unknown, real=skeleton.real):
                return "its removal changes a constant in the program"
            if reason := (cut_elsewhere if skeleton.real else misplaced)(was, now, graph, kept):
                return f"its removal changes what is cut: {reason}"
    except InputError as error:
        return f"its removal breaks the program: {error.details['got']}"
    except MetapruneError as error:
        return f"its removal is not rectangular: {error.what}"
    return None


def program_failure(graph: NeuronGraph, passes: Passes, kept: Tensor) -> str | None:
    """Why the recorded program, rewritten, does not run; None if it does."""
    try:
        tensors = slice_tensors(graph, kept)
        for _, recording in passes:
            rewrite(recording, graph, kept, tensors)
    except MetapruneError as error:
        return f"its removal breaks the program: {error.what}"
    return None


def _shapes(recording: Recording, *, exact: bool) -> list[tuple[int, ...]]:
    """The outputs' shapes; how many there are of what depends on data (detections) is not comparable."""
    shapes = [tuple(recording.values[v.number].shape) for v in leaves(recording.outputs, Value)]
    return shapes if exact else [(len(shape),) for shape in shapes]


def _constants_differ(was: Recording, now: Recording, unknown: set[int], *, real: bool) -> bool:
    """Whether an operator, a number that is no size, or a tensor that depends on no input is another than before.

    Where control flow depends on data, so do the operators, and numbers that Python has read.
    """
    if real and any(s.operator is READ and was.values[s.inputs()[0]].is_floating_point() for s in was.steps):
        return False
    if not real and [step.operator for step in was.steps] != [step.operator for step in now.steps]:
        return True
    together = takewhile(lambda pair: pair[0].operator is pair[1].operator, zip(was.steps, now.steps, strict=False))
    return any(
        _numbers(a, real=real) != _numbers(b, real=real)
        or any(_differ(was, now, *pair) for pair in zip(a.inputs(), b.inputs(), strict=False) if pair[0] not in unknown)
        for a, b in together
    )


def _differ(was: Recording, now: Recording, old: int, new: int) -> bool:
    """Whether two tensors are constants of one shape and other values."""
    if old not in was.constants or new not in now.constants:
        return False
    before, after = was.constants[old], now.constants[new]
    return before.is_floating_point() and before.shape == after.shape and not torch.equal(before, after)


def _without_copies(recording: Recording) -> Recording:
    """The same without what PyTorch does for the sake of memory alone: along a size of one, nothing is copied."""
    steps = [
        replace(step, operator=aten.view.default) if step.operator is aten._unsafe_view.default else step
        for step in recording.steps
        if step.operator is not aten.clone.default
    ]
    return replace(recording, steps=tuple(steps))


def _numbers(step: Step, *, real: bool) -> list[float]:
    pointwise = torch.Tag.pointwise in step.operator.tags and not real
    return found_in((step.args, step.kwargs), (int, float) if pointwise else float)
