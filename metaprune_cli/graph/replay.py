"""Run a recorded program step by step, where a module is not needed: on meta, to see that it holds together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.record import Recording, Value
from metaprune_cli.graph.rewrite import Size
from metaprune_cli.graph.trace import plain_operators


def replay_shapes(recording: Recording, tensors: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    """The shapes of a program's outputs over these tensors, without computing anything.

    Raises:
        NumericsError: a step does not go with what the ones before it made; names the operator.
    """
    values: dict[int, Tensor] = {number: recording.values[number] for number in recording.inputs}
    values |= {number: tensors[name].to("meta") for number, name in recording.entries.items()}
    values |= {number: value.to("meta") for number, value in recording.constants.items()}

    def given(thing: Any) -> Any:
        return values[thing.number] if isinstance(thing, Value) else thing.now

    with plain_operators():
        for step in recording.steps:
            args, kwargs = tree_map_only((Value, Size), given, (step.args, step.kwargs))
            try:
                out = step.operator(*args, **kwargs)
            except (RuntimeError, IndexError, ValueError, TypeError) as error:
                raise NumericsError(f"{step.operator}: {_first_line(error)}") from error
            made: Any = (out,) if step.single else tuple(out)
            values |= {n: t for n, t in zip(step.outputs, made, strict=True) if n is not None}
    return [tuple(values[v.number].shape) for v in leaves(recording.outputs, Value)]


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
