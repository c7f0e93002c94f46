"""NaN and infinity are never skipped in silence: training stops and names where they are."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from metaprune_cli.errors import NumericsError


def not_finite(what: str, suspects: Iterable[tuple[str, Tensor | None]], *, next_step: str) -> NumericsError:
    """The error that names the first tensor with NaN or infinity among the suspects.

    Args:
        what: one sentence on what went wrong.
        suspects: names and tensors, in the order in which they are to blame; None where there is no tensor.
        next_step: what the user can do about it.
    """
    culprit = next((name for name, tensor in suspects if tensor is not None and not tensor.isfinite().all()), None)
    return NumericsError(what, where=culprit or "the outputs; every parameter is finite", next_step=next_step)
