"""Whether a program may run where its data chooses nothing although the model skips a part of itself there."""

from __future__ import annotations

from typing import Any

import torch

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.arguments import map_in
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.program.replay import Replay
from metaprune_cli.graph.trace.choices import INTO, Choices
from metaprune_cli.graph.trace.record import READ, Recording, Step, Value
from metaprune_cli.graph.trace.sizes import Size


def skips_what_is_empty(program: Recording, nothing: Recording, numbers: int) -> bool:
    """Whether all that the two do differently makes nothing, or writes nothing into something.

    Args:
        program: what runs for any number.
        nothing: what the model runs where nothing is chosen, at the sizes at which the program was recorded.
        numbers: which recording that is.
    """
    entries = {name: program.values[number] for number, name in program.entries.items()}
    replay = Replay(program, entries, Choices(numbers))
    try:
        for step in program.steps:
            if step.operator is not READ:
                replay.run(step)
    except NumericsError:
        return False
    ours = _Essence(program, {n: tuple(replay.shape(n)) for n in replay.known})
    theirs = _Essence(nothing, {n: tuple(shape) for n, shape in enumerate(nothing.shapes)})
    return _Comparison(ours, theirs, replay).alike()


class _Essence:
    """The steps of a recording that make something which is needed."""

    def __init__(self, recording: Recording, shapes: dict[int, tuple[int, ...]]) -> None:
        self.recording, self.shapes = recording, shapes
        self.outputs = [value.number for value in leaves(recording.outputs, Value)]
        self._same: dict[int, int] = {}
        for step in recording.steps:
            if step.operator.overloadpacket in INTO and self._writes_nothing(step):
                self._same[step.outputs[0] or 0] = self.original(step.args[0].number)
        needed = set(map(self.original, self.outputs))
        found: list[Step] = []
        for step in reversed(recording.steps):
            if self._is_needed(step, needed):
                needed.update(map(self.original, step.inputs()))
                found.append(step)
        self.steps = found[::-1]

    def original(self, number: int) -> int:
        """The value that this one is a copy of."""
        return self._same.get(number, number)

    def is_empty(self, number: int) -> bool:
        """Whether a value has no elements."""
        return 0 in self.shapes.get(number, (1,))

    def _is_needed(self, step: Step, needed: set[int]) -> bool:
        if step.answer is not None:
            return True
        if step.written():
            return not self._writes_nothing(step)
        return any(number in needed and not self.is_empty(number) for number in step.outputs if number is not None)

    def _writes_nothing(self, step: Step) -> bool:
        return any(self.is_empty(number) for number in step.inputs() if number != step.args[0].number)


class _Comparison:
    """Two essences side by side; values of the one are known as values of the other."""

    def __init__(self, ours: _Essence, theirs: _Essence, replay: Replay) -> None:
        self._ours, self._theirs, self._replay = ours, theirs, replay
        a, b = ours.recording, theirs.recording
        by_name = {name: number for number, name in b.entries.items()}
        self._known = dict(zip(a.inputs, b.inputs, strict=True))
        self._known |= {number: by_name.get(name, -1) for number, name in a.entries.items()}

    def alike(self) -> bool:
        """Whether they do the same and return the same."""
        ours, theirs = self._ours, self._theirs
        if len(ours.steps) != len(theirs.steps) or len(ours.outputs) != len(theirs.outputs):
            return False
        if not all(map(self._step, ours.steps, theirs.steps)):
            return False
        return all(map(self._value, map(Value, ours.outputs), map(Value, theirs.outputs)))

    def _step(self, a: Step, b: Step) -> bool:
        if a.operator is not b.operator or len(a.outputs) != len(b.outputs) or a.answer != b.answer:
            return False
        given = map_in(Size, self._replay.size, (a.args, a.kwargs))
        if not self._arguments(given, (b.args, b.kwargs)):
            return False
        self._known.update((x, y) for x, y in zip(a.outputs, b.outputs, strict=True) if x is not None and y is not None)
        return True

    def _arguments(self, a: Any, b: Any) -> bool:
        if isinstance(a, Value):
            return isinstance(b, Value) and self._value(a, b)
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(self._arguments(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple) and isinstance(b, list | tuple):
            if a and b and all(isinstance(part, Value) for part in (*a, *b)):  # nothing joined to something is that
                a, b = (
                    [part for part in parts if not essence.is_empty(part.number)] or parts
                    for essence, parts in ((self._ours, a), (self._theirs, b))
                )
            return len(a) == len(b) and all(map(self._arguments, a, b))
        return type(a) is type(b) and a == b

    def _value(self, a: Value, b: Value) -> bool:
        x, y = self._ours.original(a.number), self._theirs.original(b.number)
        if self._ours.is_empty(x) or self._theirs.is_empty(y):
            return self._ours.shapes[x] == self._theirs.shapes[y]
        return self._known[x] == y if x in self._known else self._constants(x, y)

    def _constants(self, x: int, y: int) -> bool:
        a, b = self._ours.recording.constants.get(x), self._theirs.recording.constants.get(y)
        return a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b)
