"""Sizes that a program works out where it runs: whole numbers made of the sizes of its tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from metaprune_cli.graph.arguments import map_in

SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "/": operator.truediv,
}
"""What an operation may do; ``/`` makes the only numbers that are not whole."""


@dataclass(frozen=True)
class Extent:
    """The size of one dimension of a value, by the value's number; ``seen`` as a size has it."""

    number: int
    dim: int
    seen: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Operation:
    """Two expressions and what is done with them, a key of ``SIGNS``."""

    sign: str
    left: Expression
    right: Expression


Expression = int | Extent | Operation


@dataclass(frozen=True)
class Size:
    """A number among a step's arguments that differs with the sizes of the inputs.

    Attributes:
        expression: what it is.
        seen: its value in every recording, the program's own first; nothing where it comes from a file.
    """

    expression: Expression
    seen: tuple[Any, ...] = field(default=(), compare=False)

    @property
    def now(self) -> Any:
        """Its value where the program was recorded."""
        return self.seen[0]

    @classmethod
    def at_present(cls, arguments: Any) -> Any:
        """The arguments with numbers for sizes."""
        return map_in(cls, lambda size: size.now, arguments)

    def scaled(self, left: int, total: int) -> Size | None:
        """The same for ``left`` of every ``total`` positions; None where it is not made of so many."""
        common = gcd(left, total)
        left, total = left // common, total // common
        if any(type(seen) is not int or seen % total for seen in self.seen):
            return None
        expression = self.expression if left == 1 else Operation("*", self.expression, left)
        expression = expression if total == 1 else Operation("//", expression, total)
        return Size(expression, tuple(seen * left // total for seen in self.seen))


def replaced(expression: Expression, function: Callable[[Extent], Expression]) -> Expression:
    """The same with what ``function`` makes of the sizes of tensors in their place."""
    if isinstance(expression, Extent):
        return function(expression)
    if isinstance(expression, Operation):
        left, right = replaced(expression.left, function), replaced(expression.right, function)
        same = left is expression.left and right is expression.right
        return expression if same else Operation(expression.sign, left, right)
    return expression


def extents(expression: Expression) -> Iterator[Extent]:
    """The sizes of tensors that an expression is made of."""
    if isinstance(expression, Extent):
        yield expression
    elif isinstance(expression, Operation):
        yield from extents(expression.left)
        yield from extents(expression.right)


def evaluated(expression: Expression, size_of: Callable[[int, int], Any]) -> Any:
    """The number that an expression stands for.

    Args:
        expression: what to work out.
        size_of: the size of a value's dimension.

    Raises:
        ZeroDivisionError: it divides by a size of zero.
    """
    if isinstance(expression, Extent):
        return size_of(expression.number, expression.dim)
    if isinstance(expression, Operation):
        left, right = (evaluated(part, size_of) for part in (expression.left, expression.right))
        return SIGNS[expression.sign](left, right)
    return expression
