"""A program while it is rewritten: what stays of every tensor, and what the new steps have made so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count
from math import gcd
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.arguments import map_in
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.replay import Replay
from metaprune_cli.graph.program.survivors import SurvivorMap, Survivors
from metaprune_cli.graph.trace.labels import Label
from metaprune_cli.graph.trace.record import Recording, Step, Value
from metaprune_cli.graph.trace.sizes import Expression, Extent, Operation, Size, replaced

aten = torch.ops.aten


class Rewriting:
    """The new program as far as it is written; every new step is run on meta, where shapes show what is wrong.

    Attributes:
        recording: the program before.
        survivors: what stays of every tensor.
        steps: the new steps.
        constants: further constants (indices).
    """

    def __init__(
        self,
        recording: Recording,
        graph: NeuronGraph,
        kept: Tensor,
        tensors: Mapping[str, Tensor],
        creating: Sequence[Step],
    ) -> None:
        """Begin with the entries as they are afterwards, ``tensors``, on any device.

        ``creating`` are the steps that are told the size of a new tensor.
        """
        self.recording = recording
        self.survivors = SurvivorMap(graph, kept)
        self.steps: list[Step] = []
        self.constants: dict[int, Tensor] = {}
        self._numbers = count(len(recording.values))
        self._now = Replay(recording, tensors)
        self._filled = _filled(recording, creating)
        self._lost: dict[Extent, tuple[int, int]] = {}

    def of(self, step: Step, value: Any) -> Survivors:
        """The survivors of a tensor at a step; of one that is made empty and filled bit by bit, at the end."""
        number = value.number if isinstance(value, Value) else value
        label = self._filled.get(number, step.labels.get(number))
        return self.survivors.of(label, len(self.recording.shapes[number]))

    def shape(self, value: Any) -> torch.Size:
        """The shape of a tensor before the rewriting."""
        return self.recording.shapes[value.number if isinstance(value, Value) else value]

    @cached_property
    def written(self) -> set[int]:
        """The values that some step writes into: a copy must not take their place."""
        return {number for step in self.recording.steps for number in step.written()}

    def write(self, step: Step, old: Step) -> None:
        """Add what becomes of ``old``.

        Raises:
            NumericsError: it does not run on what is left, or its outputs have not the size of what survives of them.
        """
        if step.answer is not None:
            self.steps.append(step)
            return
        args, kwargs = map_in(Size, self._as_before, (step.args, step.kwargs))
        step = replace(step, args=args, kwargs=kwargs)
        try:
            self._now.run(step)
        except NumericsError:
            if step.operator is not aten.view.default or step.outputs[0] in self.written:
                raise
            step = replace(step, operator=aten.reshape.default)  # what was selected lies otherwise in memory
            self._now.run(step)
        self.steps.append(step)
        for number in step.outputs:
            if number is None or (old.labels.get(number) is None and number not in self._filled):
                continue
            found = self._now.shape(number)
            stays = list(zip(self.shape(number), self.of(old, number), strict=True))
            expected = [size if mask is None else int(mask.sum()) for size, mask in stays]
            for dim, (size, _) in enumerate(stays):
                if expected[dim] != size:
                    self._lost[Extent(number, dim)] = expected[dim], size
            if list(found) != expected:
                raise NumericsError("It makes another size than survives", expected=expected, got=list(found))

    def _as_before(self, size: Size) -> Size:
        """A size made of dimensions along which neurons went, as it was with them; what of it goes, its rule says."""

        def before(extent: Extent) -> Expression:
            left, total = self._lost.get(extent, (1, 1))
            common = gcd(left, total)
            if any(seen % (total // common) for seen in extent.seen):
                raise NumericsError("A size that depends on the inputs' is made of what goes")
            return extent if left == total else Operation("//", Operation("*", extent, total // common), left // common)

        return replace(size, expression=replaced(size.expression, before))

    def select(self, value: Value, dim: int, stays: Tensor) -> Value:
        """Insert a selection of positions along one dimension."""
        number = next(self._numbers)
        index = self.constant(stays.nonzero().flatten())
        step = Step(aten.index_select.default, (value, dim, index), {}, (number,), single=True, labels={})
        self._now.run(step)
        self.steps.append(step)
        return Value(number)

    def constant(self, tensor: Tensor) -> Value:
        """A new constant."""
        number = next(self._numbers)
        self.constants[number] = tensor
        self._now.add(number, tensor)
        return Value(number)

    def cut(self, step: Step, value: Value, wanted: Sequence[Tensor | None]) -> Value:
        """Select from ``value`` along the dimensions (aligned at the right) where it still has all positions.

        Raises:
            NumericsError: the step writes into it.
        """
        lead = len(wanted) - len(self.shape(value))
        for d, size in enumerate(self._now.shape(value.number)):
            stays = wanted[lead + d] if lead + d >= 0 else None
            if stays is None or size != stays.numel():
                continue
            if value.number in step.written():
                raise NumericsError("It writes into a tensor that keeps all its positions")
            value = self.select(value, d, stays)
        return value


Rule = Callable[[Rewriting, Step], Step]


def argument(step: Step, position: int, name: str, default: Any) -> Any:
    """One argument, wherever it was given."""
    return step.args[position] if len(step.args) > position else step.kwargs.get(name, default)


def first_output(work: Rewriting, step: Step) -> Survivors:
    """The survivors of the only output, or the first."""
    assert step.outputs[0] is not None
    return work.of(step, step.outputs[0])


def _filled(recording: Recording, creating: Sequence[Step]) -> dict[int, Label]:
    """What tensors carry in the end that are made empty and written to: the buffer itself, and all views of it."""

    def memory(number: int) -> int:
        return int(recording.values[number].untyped_storage()._cdata)

    made = {memory(number) for step in creating for number in step.outputs if number is not None}
    written = made & {memory(n) for step in recording.steps for n in step.written()}
    if not written:
        return {}
    last = {n: label for s in recording.steps for n, label in s.labels.items() if label is not None}
    found: dict[int, Label] = {n: label for n, label in last.items() if memory(n) in written}
    whole = {(memory(n), recording.shapes[n]): label for n, label in found.items()}
    for number in (n for step in creating for n in step.outputs if n is not None and n not in found):
        if (key := (memory(number), recording.shapes[number])) in whole:  # a view of all of it has been written to
            found[number] = whole[key]
    return found
