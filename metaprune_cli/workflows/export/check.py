"""Whether a file that was read again computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.trace.tracer import ExampleInputs, call
from metaprune_cli.workflows.export.capture import Subject


@dataclass(frozen=True)
class Compared:
    """The outcome of a comparison.

    Attributes:
        error: the largest difference of an output's elements, relative to its largest; the worst of all inputs.
        batches: the batch sizes that were run.
        inputs: random inputs of each.
        telling: whether the model's outputs depend on its inputs at all (those of an untrained head of zeros do not).
    """

    error: float
    batches: tuple[int, ...]
    inputs: int
    telling: bool


def compare(
    subject: Subject, run: Callable[[ExampleInputs], Any], batches: Sequence[int], inputs: int, tolerance: float
) -> Compared:
    """Run the model and what was made of it on the same random inputs.

    Raises:
        NumericsError: the outputs differ by more than ``tolerance``, in number or in shape, or it does not run.
    """
    worst, telling = 0.0, False
    for batch in batches:
        before: list[Tensor] | None = None
        for seed in range(inputs):
            given = subject.inputs(batch, seed)
            with torch.no_grad():
                expected = list(leaves(call(subject.model, given), Tensor))
                found = _found(run, given, batch)
            worst = max(worst, _error(found, expected, batch))
            telling |= before is not None and any(not torch.equal(*pair) for pair in zip(before, expected, strict=True))
            before = expected
    if not worst <= tolerance:
        raise NumericsError(
            "The exported file does not compute what the model computes; it was not kept.",
            expected=f"a relative error of at most {tolerance:g}",
            got=f"{worst:.3g}",
            next_step="try another --format; or --tolerance, if the difference is rounding and does not matter to you",
        )
    return Compared(worst, tuple(batches), inputs, telling)


def _found(run: Callable[[ExampleInputs], Any], given: ExampleInputs, batch: int) -> list[Tensor]:
    try:
        return list(leaves(run(given), Tensor))
    except Exception as error:
        raise NumericsError(
            f"The exported file does not run with a batch of {batch}; it was not kept.",
            got=f"{type(error).__name__}: {error}"[:400],
            next_step="try another --format, or --static-batch N, if one batch size is enough",
        ) from error


def _error(found: Sequence[Tensor], expected: Sequence[Tensor], batch: int) -> float:
    shapes, wanted = [tuple(t.shape) for t in found], [tuple(t.shape) for t in expected]
    if shapes != wanted:
        raise NumericsError(
            "The exported file has other outputs than the model; it was not kept.",
            expected=f"shapes {wanted}",
            got=f"{shapes}, with a batch of {batch}",
        )
    return max((_difference(*pair) for pair in zip(found, expected, strict=True)), default=0.0)


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value; infinite where something is not a number."""
    one, two = found.double(), expected.double()
    gap = float((one - two).abs().max()) if one.numel() else 0.0
    size = float(two.abs().max()) if two.numel() else 0.0
    if gap != gap:
        return float("inf")
    return gap / size if size else gap
