"""Rules for functions of parameters alone: weight norms, masks, low-rank factors. The result knows what made it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import tensors_in
from metaprune_cli.graph.trace.labels import Elements, Label
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.tracer import Tracer

COMPUTED = "is computed from other parameters"
_SUMMANDS = 64
"""Kernels of one parameter that are added up to one, at most."""


def between_parameters(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Label:
    """Elementwise on parameters: the elements of the largest, broadcast; the others go beside them."""
    tensors = tensors_in((args, kwargs))
    owned = [e for t in tensors if (e := trace.elements(t)) is not None]
    if not owned or any(e.index.dim() > out.dim() for e in owned):
        lost(trace, func, owned)
        return None
    first = max(owned, key=lambda e: e.index.numel())
    main = first if first.index.shape == out.shape else first.view(lambda index: index.expand(out.shape))
    others = [part.spread(out.shape) for e in owned if e is not first for part in e.alone()]
    mixes = next((e.mixes for e in owned if e.mixes), None)
    if any(trace.label(t) is None and trace.value(t) is None for t in tensors) or not trace.keeps_zero:
        mixes = mixes or f"a weight that is a function ({func.overloadpacket.__name__}) of its parameters"
    return main.beside(others, mixes, sum(e.work for e in owned if e is not first))


def summed(elements: Elements, dims: list[int], out: Tensor) -> Elements | None:
    """Kernels that one parameter holds, added up to one: the elements of each beside the first's; None for all else.

    Sums within a kernel, for its own mean say, are no kernels.
    """
    index = elements.index
    lead = len(dims)
    number = math.prod(index.shape[:lead])
    if dims != list(range(lead)) or index.dim() - lead < 2 or not 0 < number <= _SUMMANDS:
        return None
    parts = elements.apply(lambda index: index.reshape(number, *out.shape).unbind())
    assert isinstance(parts, tuple)
    first, *others = parts
    return first.beside([part for other in others for part in other.alone()])


def lost(trace: Tracer, func: Any, owned: list[Elements]) -> None:
    """From here on nobody knows which element is what: they are kept verbatim."""
    for elements in owned:
        trace.builder.spend(elements)
        for part in elements.alone():
            trace.builder.note(part.entry, f"a weight {COMPUTED} by {func.overloadpacket}")


def weight_norm(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """w = g · v / ‖v‖ (arXiv 1602.07868): v's elements, and g's beside them."""
    direction, gain = trace.elements(args[0]), trace.elements(args[1])
    if direction is None or gain is None:
        return unknown(trace, func, args, kwargs, out)
    whole = out[0] if isinstance(out, tuple | list) else out
    return direction.beside([part.spread(whole.shape) for part in gain.alone()], mixes="weight norm"), None


def factors(trace: Tracer, func: Any, left: Elements, right: Elements, out: Any) -> Label:
    """U @ V of two parameters: element (i, j) was computed from row i of U and column j of V."""
    if right.index.dim() == 1 and not (left.companions or right.companions):
        return _by_vector(trace, left, right)
    inner = left.index.size(-1)
    if left.companions or right.companions or left.index.dim() != 2 or right.index.dim() != 2:
        if out.dim() > 0:
            trace.builder.multiply(torch.zeros(1, dtype=torch.int64), out.numel() * inner)
        lost(trace, func, [left, right])
        return None
    rows = [Elements(left.entry, left.real()[:, k : k + 1].expand(out.shape)) for k in range(left.index.size(1))]
    columns = [Elements(right.entry, right.real()[k : k + 1].expand(out.shape)) for k in range(right.index.size(0))]
    return rows[0].beside([*rows[1:], *columns], work=inner)


def _by_vector(trace: Tracer, left: Elements, right: Elements) -> Label:
    """W @ v or u · w, as spectral norms have them (arXiv 1802.05957): a vector goes with the rows or columns of W."""
    if left.index.dim() == 1:
        trace.builder.escort(right, left)
        return None
    trace.builder.escort(left, right.view(lambda index: index.expand(left.index.shape)), work=1)
    return left.view(lambda index: index[:, 0])  # of every row one, to know the row by
