"""What is known of an operator: its row, and what follows from its nature where the row says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from metaprune_cli.graph.operators.operator import LabelRule, Operator
from metaprune_cli.graph.operators.table import ROWS
from metaprune_cli.graph.program.rewrite_sizes import aligned
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.rules.elementwise import pointwise
from metaprune_cli.graph.trace.rules.moves import moves
from metaprune_cli.graph.trace.rules.zeros import all_operands, follow
from metaprune_cli.graph.trace.tracer import Tracer

NOTHING = Operator()


@cache
def operator_of(func: Any) -> Operator:
    """The row of an overload's packet, completed.

    A view moves elements and keeps zeros; a pointwise operator couples, and is cut to what is left; what works in place
    keeps the zeros that the operator of its name keeps; anything else is the honest boundary.
    """
    row = _row(func)
    pointwise_tag = torch.Tag.pointwise in func.tags
    by_nature = moves if func.is_view else pointwise if pointwise_tag else unknown
    return replace(
        row,
        labels=row.labels or by_nature,
        keeps_zero=row.keeps_zero or _row(func, in_place=False).keeps_zero or (all_operands if func.is_view else None),
        rewrite=row.rewrite or (aligned if pointwise_tag else None),
    )


def has_rule(func: Any) -> bool:
    """Whether an operator is known: its row has a rule for ids, or it is a public view or elementwise operator."""
    if _row(func).labels is not None:
        return True
    return not func.overloadpacket.__name__.startswith("_") and operator_of(func).labels is not unknown


@cache
def rule_of(func: Any) -> LabelRule:
    """The rule for labels; beside its labels, it is remembered whether the output vanishes with its neurons."""
    operator = operator_of(func)
    rule, keeps_zero = operator.labels or unknown, operator.keeps_zero

    def followed(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        trace.keeps_zero = zero = keeps_zero is not None and keeps_zero(trace, args)
        labels = rule(trace, func, args, kwargs, out)
        follow(trace, func, out, zero=zero)
        return labels

    return followed


def guarded(operator: Any, run: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """What runs in the place of an operator of a program: itself, if it checks all that reaches memory.

    Args:
        operator: an overload.
        run: what calls it, given the operator first; nothing but itself by default.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        assert run is not None
        return run(operator, *args, **kwargs)

    guard = operator_of(operator).guard
    plain = operator if run is None else call
    return plain if guard is None else guard(operator, plain)


def _row(func: Any, *, in_place: bool = True) -> Operator:
    name = func.overloadpacket.__name__
    return ROWS.get(f"{func.namespace}::{name if in_place else name.rstrip('_')}", NOTHING)
