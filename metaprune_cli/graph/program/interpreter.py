"""Run the steps of a program one after the other, as data: no source code is made of them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import found_in
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.operators.registry import guarded
from metaprune_cli.graph.trace.record import Recording, Step, TypeOf, Value
from metaprune_cli.graph.trace.sizes import SIGNS, Expression, Extent, Operation, Size, extents

aten = torch.ops.aten
_VARIABLE = (Value, Size, TypeOf, torch.device)
_NOWHERE = -1


Instruction = namedtuple("Instruction", "call given names made last")
"""One call; whatever goes in and comes out has a place in memory, which is a list.

Attributes:
    call: what is called.
    given: the places of its positional and then of its keyword arguments.
    names: of the keyword arguments.
    made: the place of what it makes; several, with -1 for what nothing needs, where it makes a tuple.
    last: the places that nothing needs afterwards.
"""


@dataclass(frozen=True)
class _Draft:
    """An instruction, by places."""

    call: Callable[..., Any]
    given: tuple[int, ...]
    names: tuple[str, ...]
    made: tuple[int, ...]
    single: bool = True
    grad: bool = True

    def finished(self, needed: set[int], last: set[int]) -> Instruction:
        """With what nothing needs left out."""
        made = tuple(place if place in needed else _NOWHERE for place in self.made)
        return Instruction(
            self.call, self.given, self.names, self.made[0] if self.single else made, tuple(sorted(last))
        )


class OtherwiseError(Exception):
    """Data answers a question otherwise than it was answered in the recording; ``args`` are the answers up to it."""


class Interpreter:
    """The steps of a recording, ready to run; it holds no tensors.

    Args:
        recording: the steps.
        constants: the numbers of its constants.
    """

    def __init__(self, recording: Recording, constants: Sequence[int]) -> None:
        places = _Places([*recording.inputs, *recording.entries, *constants])
        source = recording.inputs[0] if recording.inputs else next(iter(recording.entries), None)
        used = {number for step in recording.steps for number in step.inputs()}
        outputs = [v.number for v in leaves(recording.outputs, Value)]
        writer = _Writer(places, used.union(outputs), source, _wanted(recording.steps))
        for number in (*recording.inputs, *recording.entries, *constants):
            writer.measure(number)
        for step, matrix in zip(recording.steps, repeated_matrices(recording.steps), strict=True):
            writer.write(step, matrix)
        self._outputs = tuple(map(places.of, outputs))
        self._fixed = tuple(places.fixed)
        drafts = writer.first + writer.rest
        passing = {*range(len(recording.inputs)), *(place for draft in drafts for place in draft.made)}
        self.regions = _regions(drafts, set(self._outputs), passing)
        """Runs of instructions between which gradients are switched off or on again."""

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, from inputs, entries and constants in this order."""
        memory = [*given, *self._fixed]
        for grad, instructions in self.regions:
            if grad:
                _run(memory, instructions)
            else:
                with torch.no_grad():
                    _run(memory, instructions)
        return [memory[place] for place in self._outputs]


def _run(memory: list[Any], instructions: Sequence[Any]) -> None:
    for call, given, names, made, last in instructions:
        arguments = [memory[place] for place in given]
        if names:
            count = len(given) - len(names)
            result = call(*arguments[:count], **dict(zip(names, arguments[count:], strict=True)))
        else:
            result = call(*arguments)
        if made.__class__ is int:
            memory[made] = result
        else:
            for place, part in zip(made, result, strict=True):
                if place >= 0:
                    memory[place] = part
        for place in last:
            memory[place] = None


class _Places:
    """Which place in memory a value or a constant has: inputs, entries and constants first, then all else."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.given = len(numbers)
        self.fixed: list[Any] = []
        """What lies behind the given ones at the start; None where something will be made."""
        self._known = {number: place for place, number in enumerate(numbers)}

    def of(self, number: int) -> int:
        """The place of a value that has been made.

        Raises:
            KeyError: nothing makes it.
        """
        if number not in self._known:
            raise KeyError(f"nothing makes the value {number}")
        return self._known[number]

    def make(self, number: int | None) -> int:
        """The place of a value that is made now."""
        if number is None:
            return _NOWHERE
        if number not in self._known:
            self._known[number] = self.add(None)
        return self._known[number]

    def add(self, thing: Any) -> int:
        """A new place."""
        self.fixed.append(thing)
        return self.given + len(self.fixed) - 1


class _Writer:
    """Turns steps into instructions."""

    def __init__(
        self, places: _Places, used: set[int], source: int | None, wanted: Mapping[int, Sequence[Extent]]
    ) -> None:
        self._places, self._used, self._source, self._wanted = places, used, source, wanted
        self._known: dict[Any, int] = {}
        self._answers: tuple[bool, ...] = ()
        self.first: list[_Draft] = []
        """Made once, right after the inputs: types and the device."""
        self.rest: list[_Draft] = []

    def measure(self, number: int, grad: bool = True) -> None:
        """Take the sizes of a value that are wanted later on: the value itself may be gone by then."""
        for extent in self._wanted.get(number, ()):
            if extent not in self._known:
                given = (self._places.of(number), self._places.add(extent.dim))
                self._known[extent] = self._made(_size, given, grad)

    def write(self, step: Step, matrix: int | None) -> None:
        """One step; ``matrix`` is what it multiplies every item by."""
        things, names, outputs, single = (
            [*step.args, *step.kwargs.values()],
            tuple(step.kwargs),
            step.outputs,
            step.single,
        )
        call: Callable[..., Any]
        if matrix is not None:
            call, things = times_matrix, [step.args[0], Value(matrix)]
        elif step.operator is aten.native_batch_norm.default and not names and self._used.isdisjoint(outputs[1:]):
            call, things = aten.batch_norm.default, [*things, False]  # the same kernel behind checks of all shapes
            outputs, single = outputs[:1], True
        else:
            call = guarded(step.operator)
        if step.answer is not None:
            call, single = _asked, False
            self._answers = (*self._answers, step.answer)
            things = [*things, self._answers]
        given = tuple(self._place(thing, step.grad) for thing in things)
        made = tuple(self._places.make(number) for number in outputs)
        self.rest.append(_Draft(call, given, names, made, single, step.grad))
        for number in outputs:
            if number is not None:
                self.measure(number, step.grad)

    def _place(self, thing: Any, grad: bool) -> int:
        """The place of an argument; a list that is not constant is put together just before it is used."""
        if isinstance(thing, Value):
            return self._places.of(thing.number)
        if isinstance(thing, Size):
            return self._expression(thing.expression, grad)
        if isinstance(thing, _VARIABLE):
            return self._at_first(thing)
        if not found_in(thing, _VARIABLE):
            return self._places.add(thing)
        parts = tuple(self._place(part, grad) for part in thing)
        return self._made(_listed, parts, grad)

    def _expression(self, expression: Expression, grad: bool) -> int:
        """The place of a number that follows from sizes of tensors, worked out once."""
        if not isinstance(expression, Operation):
            return self._known[expression] if isinstance(expression, Extent) else self._places.add(expression)
        if expression not in self._known:
            given = tuple(self._expression(part, grad) for part in (expression.left, expression.right))
            self._known[expression] = self._made(SIGNS[expression.sign], given, grad)
        return self._known[expression]

    def _made(self, call: Callable[..., Any], given: tuple[int, ...], grad: bool) -> int:
        made = self._places.add(None)
        self.rest.append(_Draft(call, given, (), (made,), grad=grad))
        return made

    def _at_first(self, thing: Any) -> int:
        key = torch.device if isinstance(thing, torch.device) else thing
        if key not in self._known:
            self._known[key] = self._work_out(thing)
        return self._known[key]

    def _work_out(self, thing: Any) -> int:
        if isinstance(thing, TypeOf):
            return self._call(_dtype, self._places.of(thing.number))
        if self._source is None:
            return self._places.add(torch.device("cpu"))
        return self._call(_device, self._places.of(self._source))

    def _call(self, call: Callable[..., Any], *given: int) -> int:
        made = self._places.add(None)
        self.first.append(_Draft(call, given, (), (made,)))
        return made


def _wanted(steps: Sequence[Step]) -> dict[int, list[Extent]]:
    """The sizes that the steps are given, by the value whose they are."""
    wanted: dict[int, list[Extent]] = {}
    for step in steps:
        for size in found_in((step.args, step.kwargs), Size):
            for extent in extents(size.expression):
                wanted.setdefault(extent.number, []).append(extent)
    return wanted


def _regions(drafts: Sequence[_Draft], needed: set[int], passing: set[int]) -> tuple[tuple[bool, tuple[Any, ...]], ...]:
    """The instructions by gradient mode, each with what it is the last to need.

    Args:
        drafts: the instructions in order.
        needed: the places that are needed in the end.
        passing: the places of what is to be let go; constants and entries stay where they are.
    """
    regions: list[tuple[bool, list[Any]]] = []
    for draft in reversed(drafts):
        made = set(draft.made if draft.single else needed.intersection(draft.made)) - {_NOWHERE}
        last = (made.union(draft.given) - needed) & passing
        if not regions or regions[-1][0] is not draft.grad:
            regions.append((draft.grad, []))
        regions[-1][1].append(draft.finished(needed, last))
        needed = needed.union(draft.given, made)
    return tuple((grad, tuple(reversed(steps))) for grad, steps in reversed(regions))


def repeated_matrices(steps: Sequence[Step]) -> list[int | None]:
    """For every step the matrix by which it multiplies every item of a batch, None where it does not.

    PyTorch writes a linear layer so where its input does not lie in memory row by row. A product with a repeated
    matrix reads it once for every item, which takes many times longer than one product of all rows.
    """
    matrices: set[int] = set()
    repeated: dict[int, tuple[int, list[Any]]] = {}
    found: list[int | None] = []
    for step in steps:
        number, made = next(iter(step.inputs()), -1), step.outputs[0]
        found.append(None)
        if made is None:
            continue
        if step.operator is aten.t.default:
            matrices.add(made)
        elif step.operator is aten.expand.default and number in matrices and len(step.args[1]) > 2:
            repeated[made] = number, list(step.args[1][-2:])
        elif step.operator is aten.view.default and number in repeated and step.args[1][-2:] == repeated[number][1]:
            repeated[made] = repeated[number]
        elif step.operator is aten.bmm.default and step.args[1].number in repeated:
            found[-1] = repeated[step.args[1].number][0]
    return found


def times_matrix(batch: Tensor, matrix: Tensor) -> Tensor:
    """(b, n, k) times (k, m), as one product."""
    return (batch.reshape(-1, batch.shape[-1]) @ matrix).view(*batch.shape[:-1], -1)


def _asked(tensor: Tensor, answers: tuple[bool, ...]) -> tuple[None]:
    """Go on if a question has the last of these answers."""
    if bool(tensor) is not answers[-1]:
        raise OtherwiseError(*answers[:-1], not answers[-1])
    return (None,)


def _listed(*parts: Any) -> list[Any]:
    return list(parts)


def _size(tensor: Tensor, axis: int) -> Any:
    return tensor.size(axis)


def _dtype(tensor: Tensor) -> torch.dtype:
    return tensor.dtype


def _device(tensor: Tensor) -> torch.device:
    return tensor.device
