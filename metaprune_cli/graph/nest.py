"""What models take and return: any nest of sequences, mappings and dataclasses around tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from torch import Tensor

from metaprune_cli.graph.program.fields import Fields

T = TypeVar("T")


def leaves(nest: Any, kind: type[T]) -> Iterator[T]:
    """All objects of one type in a nest, in order."""
    if isinstance(nest, kind):
        yield nest
        return
    for part in _parts(nest):
        yield from leaves(part, kind)


def map_tensors(nest: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same nest with every tensor replaced; its containers are new objects of the same types."""
    return rebuild(nest, Tensor, function)


def rebuild(nest: Any, kind: type[T], function: Callable[[T], Any]) -> Any:
    """The same nest with every object of one type replaced by what ``function`` makes of it."""
    if isinstance(nest, kind):
        return function(nest)
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        values = {f.name: rebuild(getattr(nest, f.name), kind, function) for f in dataclasses.fields(nest)}
        return _filled(nest, values)
    if isinstance(nest, Mapping):
        return type(nest)((key, rebuild(value, kind, function)) for key, value in nest.items())  # type: ignore[call-arg]
    if isinstance(nest, list | tuple):
        parts = [rebuild(part, kind, function) for part in nest]
        if isinstance(nest, Fields):
            return nest.with_values(parts)
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return nest


def _parts(nest: Any) -> list[Any]:
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        return [getattr(nest, f.name) for f in dataclasses.fields(nest)]
    if isinstance(nest, Mapping):
        return list(nest.values())
    return list(nest) if isinstance(nest, list | tuple) else []


def _filled(nest: Any, values: dict[str, Any]) -> Any:
    """A dataclass of the same type with other values, whatever its constructor wants."""
    new: Any = type(nest).__new__(type(nest))  # type: ignore[call-overload]
    new.__dict__.update(getattr(nest, "__dict__", {}))
    if isinstance(new, MutableMapping):  # a mapping and a dataclass at once: its items are its fields
        for name, value in values.items():
            if value is not None:
                new[name] = value
    for name, value in values.items():
        object.__setattr__(new, name, value)
    return new
