"""Run a recorded program step by step, where a module is not needed: on meta, to see that it holds together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.arguments import map_in
from metaprune_cli.graph.trace.choices import Choices, chooser, run_chosen
from metaprune_cli.graph.trace.layouts import run_on_meta
from metaprune_cli.graph.trace.record import Recording, Step, TypeOf, Value
from metaprune_cli.graph.trace.sizes import Size, evaluated


class Replay:
    """The values of a program as far as it has run, on meta: nothing is computed but shapes."""

    def __init__(self, recording: Recording, tensors: Mapping[str, Tensor], choices: Choices | None = None) -> None:
        """Begin with the inputs and constants of ``recording``, and with ``tensors`` as its entries.

        Args:
            recording: the program.
            tensors: its entries.
            choices: how many there are of what data chooses; as many as in the recording, where nothing is said.
        """
        self._choices = choices
        known = (*recording.inputs, *recording.constants)
        self._values = {number: recording.values[number].detach() for number in known}
        self._values |= {number: tensors[name].detach().to("meta") for number, name in recording.entries.items()}

    def add(self, number: int, tensor: Tensor) -> None:
        """A further constant."""
        self._values[number] = tensor.to("meta")

    def shape(self, number: int) -> torch.Size:
        """The shape of a value.

        Raises:
            NumericsError: nothing has made it.
        """
        if number not in self._values:
            raise NumericsError("It needs a value that is gone")
        return self._values[number].shape

    @property
    def known(self) -> list[int]:
        """The numbers of the values that have been made."""
        return list(self._values)

    def size(self, size: Size) -> Any:
        """What a size is here."""
        if self._choices is None:
            return size.now
        return evaluated(size.expression, lambda number, dim: self.shape(number)[dim])

    def run(self, step: Step) -> None:
        """One step.

        Raises:
            NumericsError: it does not go with what the ones before it made.
        """

        def given(thing: Any) -> Any:
            if isinstance(thing, Size):
                return self.size(thing)
            return self._values[thing.number] if isinstance(thing, Value) else thing.now

        for number in step.inputs():
            self.shape(number)
        args, kwargs = map_in((Value, Size, TypeOf), given, (step.args, step.kwargs))
        try:
            if step.choice is None:
                out = run_on_meta(step.operator, args, kwargs)
            else:
                choice = self._choices.of(chooser(step.operator, args)) if self._choices else step.choice
                out = run_chosen(step.operator, args, kwargs, choice.count)
            if self._choices is not None:
                self._choices.note(step.operator, args, kwargs, out)
        except (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError) as error:
            raise NumericsError(_first_line(error)) from error
        made: Any = (out,) if step.single else tuple(out)
        if len(made) != len(step.outputs):
            raise NumericsError(f"It makes {len(made)} tensors instead of {len(step.outputs)}")
        self._values |= {n: t for n, t in zip(step.outputs, made, strict=True) if n is not None}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
