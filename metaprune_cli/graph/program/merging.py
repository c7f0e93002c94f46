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
from metaprune_cli.graph.trace.record import Recording, Step, Value
from metaprune_cli.graph.trace.sizes import Extent, Size

aten = torch.ops.aten
_COPIES = (aten.clone.default, aten._unsafe_view.default, aten.view.default, aten.expand.default)
_LONGEST = 64
"""How many numbers a tensor written out in Python may have to be made of sizes."""


@dataclass(frozen=True)
class Merged:
    """What several recordings have in common.

    Attributes:
        recording: the first, with sizes for numbers that differ.
        varying: the values that are not the same in all of them.
    """

    recording: Recording
    varying: frozenset[int]


def _returned(recording: Recording) -> list[Any]:
    return [list(leaves(recording.outputs, kind)) for kind in (Value, int, float, str)]


class _DiffersError(Exception):
    """The program depends on the sizes in another way than through numbers that follow from them."""


def alike(one: Recording, other: Recording) -> bool:
    """Whether two recordings are of the same operators, one by one."""
    return (
        len(one.shapes) == len(other.shapes)
        and len(one.steps) == len(other.steps)
        and all(
            a.operator is b.operator and a.outputs == b.outputs for a, b in zip(one.steps, other.steps, strict=True)
        )
    )


def alike_but_for_copies(one: Recording, other: Recording) -> bool:
    """The same without what PyTorch leaves out for a size of one or none: copies, and views in the place of them."""
    first, second = ([s.operator for s in r.steps if s.operator not in _COPIES] for r in (one, other))
    return first == second


def merged(recordings: Sequence[Recording]) -> Merged | None:
    """One program of several recordings, at other sizes of the inputs each; None where they are not of one.

    Args:
        recordings: the program's own first.
    """
    first, *others = recordings
    if not all(alike(first, other) and _returned(other) == _returned(first) for other in others):
        return None
    if not _are_told_apart(recordings):
        return None
    try:
        return _Merging(recordings).done()
    except _DiffersError:
        return None


def _are_told_apart(recordings: Sequence[Recording]) -> bool:
    """Whether each choice of data was of other numbers than any other choice and any size of an input."""
    chosen = {
        steps[0].choice.number: tuple(step.choice and step.choice.count for step in steps)
        for steps in zip(*(recording.steps for recording in recordings), strict=True)
        if steps[0].choice
    }
    inputs = recordings[0].inputs
    sizes = {seen for n in inputs for seen in zip(*(recording.shapes[n] for recording in recordings), strict=True)}
    told = all(len(set(seen)) > 1 for seen in chosen.values()) and len({*chosen.values()}) == len(chosen)
    return told and sizes.isdisjoint(chosen.values())


class _Merging:
    """The steps as far as they are merged, and the sizes that they know."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = recordings
        self._known = Extents()
        self._varying = _varying(recordings)
        self._first = recordings[0]
        self._values, self._shapes = list(self._first.values), list(self._first.shapes)
        self._steps: list[Step] = []

    def done(self) -> Merged:
        """All of it.

        Raises:
            _DiffersError: a number does not follow from sizes.
        """
        made = {*self._first.inputs, *self._first.entries}
        for number in self._first.inputs:
            self._add(number)
        for own in zip(*(recording.steps for recording in self._recordings), strict=True):
            for number in own[0].inputs():
                if number in self._varying and number not in made:  # written out in Python
                    self._write_out(number)
            self._merge(own)
            made.update(n for n in (*own[0].inputs(), *own[0].outputs) if n is not None)
        first = replace(self._first, steps=tuple(self._steps), values=tuple(self._values), shapes=tuple(self._shapes))
        return Merged(first, self._varying)

    def _merge(self, own: Sequence[Step]) -> None:
        flat, specs = zip(*(tree_flatten((step.args, step.kwargs)) for step in own), strict=True)
        if any(spec != specs[0] for spec in specs):
            raise _DiffersError
        args, kwargs = tree_unflatten([_unified(self._known, seen) for seen in zip(*flat, strict=True)], specs[0])
        self._steps.append(replace(own[0], args=args, kwargs=kwargs))
        parts = any(made.type.kind() == "ListType" for made in own[0].operator._schema.returns)  # of which some may go
        if not parts:
            for number in own[0].outputs:
                if number is not None:
                    self._add(number)

    def _add(self, number: int) -> None:
        """The sizes of a value."""
        shapes = [recording.shapes[number] for recording in self._recordings]
        if len({len(shape) for shape in shapes}) > 1:
            raise _DiffersError
        for dim, seen in enumerate(zip(*shapes, strict=True)):
            self._known.add(Extent(number, dim, seen))

    def _write_out(self, number: int) -> None:
        """``torch.tensor([height, width])``, as steps that make it of sizes."""
        values = [r.constants[number] for r in self._recordings if number in r.constants]
        alike = len({value.shape for value in values}) == 1 and len(values) == len(self._recordings)
        if not alike or values[0].numel() > _LONGEST:
            raise _DiffersError
        parts = []
        for seen in zip(*(value.flatten().tolist() for value in values), strict=True):
            whole = tuple(int(part) if part == part // 1 else part for part in seen)
            made = Value(self._new(()))
            given = (_unified(self._known, whole if all(type(part) is int for part in whole) else seen),)
            self._step(aten.scalar_tensor.default, given, made.number, dtype=values[0].dtype, device=values[0].device)
            parts.append(made)
        flat = Value(self._new((len(parts),)))
        self._step(aten.stack.default, (parts,), flat.number)
        self._step(aten.view.default, (flat, list(values[0].shape)), number)

    def _new(self, shape: tuple[int, ...]) -> int:
        self._values.append(torch.empty(shape, device="meta"))
        self._shapes.append(torch.Size(shape))
        return len(self._values) - 1

    def _step(self, operator: Any, args: tuple[Any, ...], made: int, **kwargs: Any) -> None:
        self._steps.append(Step(operator, args, kwargs, (made,), single=True, labels={}))
        self._varying |= {made}


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
    return frozenset(found)


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.dtype == other.dtype and torch.equal(value, other)
