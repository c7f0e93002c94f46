"""Which sizes of inputs a program was made for, and the error that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from torch import Tensor

from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.program.script import Varying
from metaprune_cli.graph.trace.record import Value

Examples = Sequence[tuple[tuple[int, ...], Any]]
"""Shape and type of every input of the example."""


def is_made_for(varies: Sequence[Varying], examples: Examples, inputs: Sequence[Tensor]) -> bool:
    """Whether a program may be run on inputs of these sizes."""
    if any(tensor.dim() != len(shape) for tensor, (shape, _) in zip(inputs, examples, strict=True)):
        return False
    free = {place for size in varies for place in size.places}
    fixed = all(
        (at, dim) in free or tensor.shape[dim] == own
        for at, (tensor, (shape, _)) in enumerate(zip(inputs, examples, strict=True))
        for dim, own in enumerate(shape)
    )
    return fixed and all(size.allows([inputs[at].shape[dim] for at, dim in size.places]) for size in varies)


def was_recorded(varies: Sequence[Varying], inputs: Sequence[Tensor]) -> bool:
    """Whether all sizes but the batch are those of a recording: then what goes wrong is another matter."""
    return all(
        size.step is None or inputs[at].shape[dim] in size.recorded for size in varies for at, dim in size.places
    )


def of_other_sizes(
    varies: Sequence[Varying], examples: Examples, arguments: Mapping[str, Any], inputs: Sequence[Tensor]
) -> InputError:
    """The error for inputs that a program was not made for."""
    names = [name for name, nest in arguments.items() for _ in leaves(nest, Value)]
    letters = dict(zip(varies, _letters(varies), strict=True))
    words = {place: letters[size] for size in varies for place in size.places}
    made_for = [
        f"{name} of {_shown([words.get((at, dim), str(size)) for dim, size in enumerate(shape)])}"
        for at, (name, (shape, _)) in enumerate(zip(names, examples, strict=True))
    ]
    where = [f"{letters[size]} {_range(size)}" for size in varies if size.step is not None]
    return InputError(
        "This program was not made for inputs of these sizes.",
        expected="; ".join([", ".join(made_for), *where]),
        got=", ".join(f"{name} of {_shown(tensor.shape)}" for name, tensor in zip(names, inputs, strict=True)),
        next_step="prune the model with example inputs of this size (--input-shape), or with --route class",
    )


def _letters(varies: Sequence[Varying]) -> list[str]:
    left = iter(ascii_lowercase)
    return ["any batch" if size.step is None else next(left) for size in varies]


def _range(size: Varying) -> str:
    seen = ", ".join(map(str, sorted(size.recorded)))
    step = "" if size.step == 1 else f", in steps of {size.step}"
    return f"any size (recorded at {seen}){step}" if not step else f"like {size.recorded[0]}{step} (recorded at {seen})"


def _shown(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"
