"""The tensors among an operator's arguments: lists, tuples and dicts only, which is why no general tree is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def tensors_in(arguments: Any) -> list[Tensor]:
    """All tensors, in order."""
    found: list[Tensor] = []
    _collect(arguments, found)
    return found


def _collect(tree: Any, found: list[Tensor]) -> None:
    if isinstance(tree, Tensor):
        found.append(tree)
    elif isinstance(tree, list | tuple):
        for part in tree:
            _collect(part, found)
    elif isinstance(tree, dict):
        for part in tree.values():
            _collect(part, found)


def map_tensors_in(function: Callable[[Tensor], Any], arguments: Any) -> Any:
    """The same arguments with ``function`` of every tensor in its place; what holds no tensor is passed on as it is."""
    if isinstance(arguments, Tensor):
        return function(arguments)
    if isinstance(arguments, list | tuple):
        parts = [map_tensors_in(function, part) for part in arguments]
        if all(new is old for new, old in zip(parts, arguments, strict=True)):
            return arguments
        return parts if isinstance(arguments, list) else tuple(parts)
    if isinstance(arguments, dict):
        return {name: map_tensors_in(function, part) for name, part in arguments.items()}
    return arguments
