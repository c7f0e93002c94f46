"""Floating-point types in a program: what was recorded as the model's own type is whatever type the model has then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from metaprune_cli.graph.arguments import map_in
from metaprune_cli.graph.trace.record import Recording, Step, TypeOf, Value


def of_the_models_types(recording: Recording) -> Recording:
    """Types that entries have are written as the first such entry's.

    What follows from sizes alone (a mask, a rotary table) is computed in the type it was computed in, as a constant
    was, and takes the model's where it meets data.
    """
    return _Typing(recording).done()


class _Typing:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._types: dict[torch.dtype, TypeOf] = {}
        for number in recording.entries:
            dtype = recording.values[number].dtype
            if dtype.is_floating_point:
                self._types.setdefault(dtype, TypeOf(number, dtype))
        self._own = self._computed()
        self._values, self._shapes = list(recording.values), list(recording.shapes)
        self._cast: dict[int, Value] = {}
        self._steps: list[Step] = []

    def done(self) -> Recording:
        for step in self._recording.steps:
            written = {self._recording.storage(n) for n in step.written()}
            self._cast = {n: cast for n, cast in self._cast.items() if self._recording.storage(n) not in written}
            if self._own.issuperset(n for n in step.outputs if n is not None):
                self._steps.append(step)
                continue
            args, kwargs = map_in((Value, torch.dtype), self._followed, (step.args, step.kwargs))
            self._steps.append(replace(step, args=args, kwargs=kwargs))
        steps, values, shapes = tuple(self._steps), tuple(self._values), tuple(self._shapes)
        return replace(self._recording, steps=steps, values=values, shapes=shapes)

    def _computed(self) -> set[int]:
        """What steps make of constants and sizes alone, and nothing that depends on data is written into."""
        recording = self._recording
        data = recording.unknown
        filled = {recording.storage(n) for step in recording.steps for n in step.written() if n in data}
        made = {n for step in recording.steps for n in step.outputs if n is not None}
        return {n for n in made - data if recording.storage(n) not in filled}

    def _followed(self, thing: Any) -> Any:
        if isinstance(thing, torch.dtype):
            return self._types.get(thing, thing)
        number = thing.number
        if number not in self._own or (wanted := self._types.get(self._recording.values[number].dtype)) is None:
            return thing
        if number not in self._cast:
            self._cast[number] = Value(len(self._values))
            self._values.append(self._recording.values[number])
            self._shapes.append(self._recording.shapes[number])
            operator, made = torch.ops.aten._to_copy.default, (self._cast[number].number,)
            self._steps.append(Step(operator, (thing,), {"dtype": wanted}, made, single=True, labels={}))
        return self._cast[number]
