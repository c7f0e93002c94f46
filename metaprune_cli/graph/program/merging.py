"""Make one program of recordings at several sizes: numbers that differ become expressions of what they follow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.program.fitting import Extents
from metaprune_cli.graph.trace.labels import Label, varying
from metaprune_cli.graph.trace.record import Recording, Step, Value
from metaprune_cli.graph.trace.sizes import Extent, Size

_LITERALS = (Value, bool, int, float, str)


@dataclass(frozen=True)
class Merged:
    """What several recordings have in common.

    Attributes:
        steps: those of the first, with sizes for numbers that differ.
        varying: the values that are not the same in all of them.
    """

    steps: tuple[Step, ...]
    varying: frozenset[int]


class _DiffersError(Exception):
    """The program depends on the sizes in another way than through numbers that follow from them."""


def alike(one: Recording, other: Recording) -> bool:
    """Whether two recordings are of the same operators, one by one."""
    return len(one.shapes) == len(other.shapes) and len(one.steps) == len(other.steps) and all(
        a.operator is b.operator and a.outputs == b.outputs for a, b in zip(one.steps, other.steps, strict=True)
    )


def merged(recordings: Sequence[Recording]) -> Merged | None:
    """One program of several recordings, at other sizes of the inputs each; None where they are not of one.

    Args:
        recordings: the program's own first, with labels: what neurons lie along changes in size with them.
    """
    first, *others = recordings
    same = list(leaves(first.outputs, _LITERALS))  # type: ignore[type-var]
    if not all(alike(first, other) and list(leaves(other.outputs, _LITERALS)) == same for other in others):  # type: ignore[type-var]
        return None
    try:
        return Merged(tuple(_steps(recordings)), _varying(recordings))
    except _DiffersError:
        return None


def _steps(recordings: Sequence[Recording]) -> list[Step]:
    known = Extents()
    for number in recordings[0].inputs:
        _add(known, number, None, recordings)
    steps = []
    for own in zip(*(recording.steps for recording in recordings), strict=True):
        flat, specs = zip(*(tree_flatten((step.args, step.kwargs)) for step in own), strict=True)
        if any(spec != specs[0] for spec in specs):
            raise _DiffersError
        args, kwargs = tree_unflatten([_unified(known, seen) for seen in zip(*flat, strict=True)], specs[0])
        steps.append(replace(own[0], args=args, kwargs=kwargs))
        if own[0].operator._schema.returns[0].type.kind() != "ListType":  # of parts, some may go
            for number in own[0].outputs:
                if number is not None:
                    _add(known, number, own[0].labels.get(number), recordings)
    return steps


def _add(known: Extents, number: int, label: Label, recordings: Sequence[Recording]) -> None:
    """The sizes of a value, but for those along which neurons may go."""
    shapes = [recording.shapes[number] for recording in recordings]
    if len({len(shape) for shape in shapes}) > 1:
        raise _DiffersError
    neurons = varying(label) if isinstance(label, Tensor) else []
    for dim in range(len(shapes[0])):
        if dim not in neurons:
            known.add(Extent(number, dim), tuple(shape[dim] for shape in shapes))


def _unified(known: Extents, seen: tuple[Any, ...]) -> Any:
    here = seen[0]
    if all(type(other) is type(here) and (other == here or (other != other and here != here)) for other in seen):
        return here
    if all(type(other) is int for other in seen):
        expression = known.fit(seen)
    elif all(type(other) is float for other in seen):
        expression = known.fit_fraction(seen)
    else:
        expression = None
    if expression is None:
        raise _DiffersError
    return Size(expression, seen)


def _varying(recordings: Sequence[Recording]) -> frozenset[int]:
    first, *others = recordings
    found = {n for n, shape in enumerate(first.shapes) if any(other.shapes[n] != shape for other in others)}
    for number, value in first.constants.items():
        if number not in found and not all(_same(value, other.constants.get(number)) for other in others):
            found.add(number)
    made = {*first.inputs, *(n for step in first.steps for n in step.outputs)}
    if not found <= made:  # written out in Python, and not always the same
        raise _DiffersError
    return frozenset(found)


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.dtype == other.dtype and torch.equal(value, other)
