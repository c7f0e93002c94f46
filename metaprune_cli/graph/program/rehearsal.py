"""Run a program on meta before it runs for real: nothing is computed or allocated, and what is wrong shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.arguments import found_in, map_in
from metaprune_cli.graph.operators.registry import guarded
from metaprune_cli.graph.trace.choices import Choices, chooser, run_chosen
from metaprune_cli.graph.trace.layouts import run_on_meta
from metaprune_cli.graph.trace.record import Step, TypeOf, Value
from metaprune_cli.graph.trace.sizes import Operation, Size, evaluated

_LEAST = 2**30
_PER_INPUT, _PER_ENTRY = 256, 16
"""How many bytes a tensor may have: a gibibyte, and this many times those of the inputs and of the entries."""
_TOGETHER = 256
"""How many times as many all tensors of a program may have."""


def rehearse(
    steps: Sequence[Step],
    inputs: Mapping[int, Tensor],
    entries: Mapping[int, Tensor],
    constants: Mapping[int, Tensor],
    choices: Choices,
) -> None:
    """Run the steps of a program from a file on meta.

    Args:
        steps: the program, checked on reading.
        inputs: tensors of the shapes that it is given, by number.
        entries: likewise; only shapes and types matter.
        constants: likewise.
        choices: how many there are of what data chooses.

    Raises:
        CorruptFileError: a step does not run, or makes tensors out of all proportion.
    """
    most = _LEAST + _PER_INPUT * _bytes(inputs) + _PER_ENTRY * _bytes({**entries, **constants})
    values = {n: t.detach().to("meta") for n, t in {**inputs, **entries, **constants}.items()}
    total = 0

    def given(thing: Any) -> Any:
        if isinstance(thing, Value):
            return values[thing.number]
        if isinstance(thing, Size):
            return evaluated(thing.expression, lambda number, dim: values[number].shape[dim])
        return values[thing.number].dtype if isinstance(thing, TypeOf) else torch.device("meta")

    for step in steps:
        if step.answer is not None:
            _check_question(values[step.inputs()[0]])
            continue
        try:
            args, kwargs = map_in((Value, Size, TypeOf, torch.device), given, (step.args, step.kwargs))
        except (ArithmeticError, LookupError) as error:
            raise CorruptFileError(
                f"The program in the file has no size for {step.operator}.", got=str(error)
            ) from error
        made = _run(step, args, kwargs, choices)
        for tensor in made:
            total += (size := _size(tensor))
            if size > most or total > most * _TOGETHER:
                raise CorruptFileError(
                    f"The program in the file makes tensors out of all proportion at {step.operator}.",
                    expected=f"{most} bytes at most",
                    got=f"shape {tuple(tensor.shape)}",
                )
        values |= {n: tensor for n, tensor in zip(step.outputs, made, strict=True) if n is not None}


def _check_question(tensor: Tensor) -> None:
    if tensor.dtype is not torch.bool or tensor.numel() != 1:
        raise CorruptFileError("The program in the file asks what is no single truth value.")


def _run(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any], choices: Choices) -> tuple[Any, ...]:
    """What a step makes."""
    try:
        by = chooser(step.operator, args)
        if by is None:
            out = guarded(step.operator, _remembered)(*args, **kwargs)
        else:
            out = run_chosen(step.operator, args, kwargs, choices.of(by).count)
        choices.note(step.operator, args, kwargs, out)
        made = (out,) if step.single else tuple(out)
        if len(made) != len(step.outputs) or not all(isinstance(part, Tensor) for part in made):
            raise ValueError(f"it makes {len(made)} values instead of {len(step.outputs)}")
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CorruptFileError(f"The program in the file does not run: {step.operator}.", got=first[:200]) from error
    return made


def _remembered(operator: Any, *args: Any, **kwargs: Any) -> Any:
    return run_on_meta(operator, args, kwargs)


def _size(tensor: Tensor) -> int:
    """The bytes of a tensor, or of its memory where that is more."""
    return max(tensor.numel() * tensor.element_size(), int(tensor.untyped_storage().nbytes()))


def _bytes(tensors: Mapping[int, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def bends(steps: Sequence[Step]) -> bool:
    """Whether a size is anything but a product: what grows in proportion at one size of the inputs does so at all."""
    return any(_bends(size.expression) for step in steps for size in found_in((step.args, step.kwargs), Size))


def _bends(expression: Any) -> bool:
    if not isinstance(expression, Operation):
        return False
    return expression.sign != "*" or _bends(expression.left) or _bends(expression.right)
