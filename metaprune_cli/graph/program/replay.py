"""Run a recorded program step by step, where a module is not needed: on meta, to see that it holds together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.arguments import map_in
from metaprune_cli.graph.trace.choices import run_chosen
from metaprune_cli.graph.trace.layouts import run_on_meta
from metaprune_cli.graph.trace.record import Recording, Step, TypeOf, Value
from metaprune_cli.graph.trace.sizes import Size


class Replay:
    """The values of a program as far as it has run, on meta: nothing is computed but shapes."""

    def __init__(self, recording: Recording, tensors: Mapping[str, Tensor]) -> None:
        """Begin with the inputs and constants of ``recording``, and with ``tensors`` as its entries."""
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

    def run(self, step: Step) -> None:
        """One step.

        Raises:
            NumericsError: it does not go with what the ones before it made.
        """

        def given(thing: Any) -> Any:
            return self._values[thing.number] if isinstance(thing, Value) else thing.now

        for number in step.inputs():
            self.shape(number)
        args, kwargs = map_in((Value, Size, TypeOf), given, (step.args, step.kwargs))
        try:
            if step.choice is None:
                out = run_on_meta(step.operator, args, kwargs)
            else:
                out = run_chosen(step.operator, args, kwargs, step.choice.count)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise NumericsError(_first_line(error)) from error
        made: Any = (out,) if step.single else tuple(out)
        if len(made) != len(step.outputs):
            raise NumericsError(f"It makes {len(made)} tensors instead of {len(step.outputs)}")
        self._values |= {n: t for n, t in zip(step.outputs, made, strict=True) if n is not None}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
