"""The tensors (or values) among an operator's arguments: lists, tuples and dicts only, so no general tree is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


def tensors_in(arguments: Any) -> list[Tensor]:
    """All tensors, in order."""
    return found_in(arguments, Tensor)


def found_in(arguments: Any, kind: type[T] | tuple[type[T], ...]) -> list[T]:
    """All objects of a type (or of one of several), in order."""
    found: list[T] = []
    _collect(arguments, kind, found)
    return found


def _collect(tree: Any, kind: type[T] | tuple[type[T], ...], found: list[T]) -> None:
    if isinstance(tree, kind):
        found.append(tree)
    elif isinstance(tree, list | tuple):
        for part in tree:
            _collect(part, kind, found)
    elif isinstance(tree, dict):
        for part in tree.values():
            _collect(part, kind, found)


def map_tensors_in(function: Callable[[Tensor], Any], arguments: Any) -> Any:
    """The same arguments with ``function`` of every tensor in its place; what holds no tensor is passed on as it is."""
    return map_in(Tensor, function, arguments)


def map_in(kind: type | tuple[type, ...], function: Callable[[Any], Any], arguments: Any) -> Any:
    """The same arguments with ``function`` of every object of ``kind`` in its place; the rest is passed on as it is."""
    if isinstance(arguments, kind):
        return function(arguments)
    if isinstance(arguments, list | tuple):
        parts = [map_in(kind, function, part) for part in arguments]
        if all(new is old for new, old in zip(parts, arguments, strict=True)):
            return arguments
        return parts if isinstance(arguments, list) else tuple(parts)
    if isinstance(arguments, dict):
        return {name: map_in(kind, function, part) for name, part in arguments.items()}
    return arguments
