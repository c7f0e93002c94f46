"""Where removing is not the same as zeroing: which activations are not zero when all parameters of their neuron are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from metaprune_cli.graph.arguments import tensors_in
from metaprune_cli.graph.trace.labels import Elements
from metaprune_cli.graph.trace.tracer import Tracer

ZeroRule = Callable[[Tracer, tuple[Any, ...]], bool]
"""Whether an operator's result is zero wherever the parameters behind its operands are, given its arguments."""


def follow(trace: Tracer, func: Any, out: Any, *, zero: bool) -> None:
    """Remember whether ``out`` vanishes where its neurons' parameters do; a write in place tells all views of it."""
    for leaf in out if isinstance(out, tuple | list) else (out,):
        if isinstance(leaf, Tensor):
            if zero:
                trace.lively.discard(id(leaf))
            else:
                written = trace.sharing(leaf) if func._schema.is_mutable else []
                trace.lively.update(id(t) for t in (leaf, *written))


def vanishes(trace: Tracer, tensor: object) -> bool:
    """Whether a tensor is zero where the parameters of its neurons are."""
    label = trace.label(tensor)
    if isinstance(label, Elements):
        return label.mixes is None
    return label is not None and id(tensor) not in trace.lively


def any_operand(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """A product: zero as soon as one operand is."""
    return any(vanishes(trace, t) for t in tensors_in(args))


def first_operand(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """A quotient: zero where what is divided is."""
    return any(vanishes(trace, t) for t in tensors_in(args)[:1])


def own_weights(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """A contraction with a parameter, and a bias perhaps: zero where all of them are."""
    return all(vanishes(trace, t) for t in tensors_in(args) if trace.elements(t) is not None)


def own_scale(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """A normalisation: zero where its own scale and shift are; without them, where its input is."""
    return args[1] is not None or all(vanishes(trace, t) for t in tensors_in(args)[:1])


def all_operands(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """A sum, an odd function, a selection: zero where all operands are."""
    floating = [t for t in tensors_in(args) if t.is_floating_point() or t.is_complex()]
    return all(vanishes(trace, t) or _is_zero(trace, t) for t in floating)


def unshifted(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """A sum, of which the second summand may be a plain number."""
    return _number(args, 1) == 0 and all_operands(trace, args)


def clamped(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """Between bounds, or above one: zero is allowed."""
    low, high = _number(args, 1), _number(args, 2)
    return low <= 0 and (high >= 0 or len(args) < 3) and all_operands(trace, args)


def clamped_above(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """Below a bound: zero is allowed."""
    return _number(args, 1) >= 0 and all_operands(trace, args)


def padded(trace: Tracer, args: tuple[Any, ...]) -> bool:
    """Padded with zeros."""
    return (len(args) < 3 or args[2] == 0) and all_operands(trace, args)


def _number(args: tuple[Any, ...], position: int) -> float:
    """A plain number among the arguments; 0 where there is none, or a tensor."""
    given = args[position] if len(args) > position else 0
    return given if isinstance(given, int | float) else 0


def _is_zero(trace: Tracer, tensor: Tensor) -> bool:
    value = trace.value(tensor)
    return value is not None and not bool(value.any())
