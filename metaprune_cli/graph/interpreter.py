"""Run the steps of a program one after the other, as data: no source code is made of them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import found_in
from metaprune_cli.graph.guarded import guarded
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.record import Recording, Size, Step, TypeOf, Value

aten = torch.ops.aten
_VARIABLE = (Value, Size, TypeOf, torch.device)
_NOWHERE = -1


Instruction = namedtuple("Instruction", "call given names made single last")
"""One call; whatever goes in and comes out has a place in a list, constants too.

Attributes:
    call: what is called.
    given: the places of its positional and then of its keyword arguments.
    names: of the keyword arguments.
    made: the places of what it makes; -1 where nothing needs it.
    single: whether it makes one thing rather than a tuple of them.
    last: the places that nothing needs afterwards.
"""


class Interpreter:
    """The steps of a recording, ready to run; it holds no tensors.

    Args:
        recording: the steps.
        constants: the numbers of its constants.
        axis: the dimension of the first input that is the batch.
    """

    def __init__(self, recording: Recording, constants: Sequence[int], axis: int) -> None:
        places = _Places([*recording.inputs, *recording.entries, *constants])
        source = recording.inputs[0] if recording.inputs else next(iter(recording.entries), None)
        writer = _Writer(places, source, axis)
        for step, matrix in zip(recording.steps, repeated_matrices(recording.steps), strict=True):
            writer.write(step, matrix)
        outputs = [places.of(v.number) for v in leaves(recording.outputs, Value)]
        self._outputs = tuple(outputs)
        self._fixed = tuple(places.fixed)
        instructions = [(True, made) for made in writer.first] + writer.rest
        passing = {*range(len(recording.inputs)), *(place for _, step in instructions for place in step.made)}
        self.regions = _regions(instructions, set(outputs), passing)
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


def _run(memory: list[Any], instructions: Sequence[Instruction]) -> None:
    for call, given, names, made, single, last in instructions:
        arguments = [memory[place] for place in given]
        if names:
            count = len(given) - len(names)
            result = call(*arguments[:count], **dict(zip(names, arguments[count:], strict=True)))
        else:
            result = call(*arguments)
        if single:
            memory[made[0]] = result
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

    def __init__(self, places: _Places, source: int | None, axis: int) -> None:
        self._places, self._source, self._axis = places, source, axis
        self._known: dict[Any, int] = {}
        self.first: list[Instruction] = []
        """Made once, right after the inputs: sizes that depend on the batch, types and the device."""
        self.rest: list[tuple[bool, Instruction]] = []

    def write(self, step: Step, matrix: int | None) -> None:
        """One step; ``matrix`` is what it multiplies every item by."""
        if matrix is not None:
            call: Callable[..., Any] = _times_matrix
            given, names = [self._place(step.args[0], step.grad), self._places.of(matrix)], ()
        else:
            call = guarded(step.operator)
            things = [*step.args, *step.kwargs.values()]
            given, names = [self._place(thing, step.grad) for thing in things], tuple(step.kwargs)
        made = tuple(self._places.make(number) for number in step.outputs)
        self.rest.append((step.grad, Instruction(call, tuple(given), names, made, step.single, ())))

    def _place(self, thing: Any, grad: bool) -> int:
        """The place of an argument; a list that is not constant is put together just before it is used."""
        if isinstance(thing, Value):
            return self._places.of(thing.number)
        if isinstance(thing, _VARIABLE):
            return self._at_first(thing)
        if not found_in(thing, _VARIABLE):
            return self._places.add(thing)
        parts = tuple(self._place(part, grad) for part in thing)
        made = self._places.add(None)
        self.rest.append((grad, Instruction(_listed, parts, (), (made,), True, ())))
        return made

    def _at_first(self, thing: Any) -> int:
        key = (thing.fixed, thing.per_item) if isinstance(thing, Size) else thing
        if isinstance(thing, torch.device):
            key = torch.device
        if key not in self._known:
            self._known[key] = self._work_out(thing)
        return self._known[key]

    def _work_out(self, thing: Any) -> int:
        if isinstance(thing, TypeOf):
            return self._call(_dtype, self._places.of(thing.number))
        if self._source is None:
            return self._places.add(torch.device("cpu") if isinstance(thing, torch.device) else thing.fixed)
        source = self._places.of(self._source)
        if isinstance(thing, torch.device):
            return self._call(_device, source)
        if "batch" not in self._known:
            self._known["batch"] = self._call(_size, source, self._places.add(self._axis))
        numbers = (self._places.add(thing.fixed), self._places.add(thing.per_item))
        return self._call(_scaled, self._known["batch"], *numbers)

    def _call(self, call: Callable[..., Any], *given: int) -> int:
        made = self._places.add(None)
        self.first.append(Instruction(call, given, (), (made,), True, ()))
        return made


def _regions(
    instructions: list[tuple[bool, Instruction]], needed: set[int], passing: set[int]
) -> tuple[tuple[bool, tuple[Instruction, ...]], ...]:
    """The instructions by gradient mode, each with what it is the last to need.

    Args:
        instructions: and whether gradients are recorded there.
        needed: the places that are needed in the end.
        passing: the places of what is to be let go; constants and entries stay where they are.
    """
    regions: list[tuple[bool, list[Instruction]]] = []
    for grad, step in reversed(instructions):
        made = tuple(place if step.single or place in needed else _NOWHERE for place in step.made)
        touched = {place for place in (*step.given, *made) if place >= 0}
        last = tuple(sorted((touched - needed) & passing))
        needed |= touched
        if not regions or regions[-1][0] is not grad:
            regions.append((grad, []))
        regions[-1][1].append(step._replace(made=made, last=last))
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


def _times_matrix(batch: Tensor, matrix: Tensor) -> Tensor:
    """(b, n, k) times (k, m), as one product."""
    return (batch.reshape(-1, batch.shape[-1]) @ matrix).view(*batch.shape[:-1], -1)


def _listed(*parts: Any) -> list[Any]:
    return list(parts)


def _size(tensor: Tensor, axis: int) -> Any:
    return tensor.size(axis)


def _scaled(batch: Any, fixed: int, per_item: int) -> Any:
    return batch * per_item + fixed


def _dtype(tensor: Tensor) -> torch.dtype:
    return tensor.dtype


def _device(tensor: Tensor) -> torch.device:
    return tensor.device
