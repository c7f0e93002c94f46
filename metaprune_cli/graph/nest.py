"""What models take and return: any nest of sequences, mappings and records around tensors."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

from metaprune_cli.graph.program.fields import Fields

T = TypeVar("T")
_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.memory_format, torch.layout)


def leaves(nest: Any, kind: type[T]) -> Iterator[T]:
    """All objects of one type in a nest, in order.

    Objects of a class of somebody's own are opened where they are the whole nest; within one (a cache beside the
    logits) they are no outputs but the model's own affair.
    """
    return _leaves(_opened(nest, kind), kind)


def _leaves(nest: Any, kind: type[T]) -> Iterator[T]:
    if isinstance(nest, kind):
        yield nest
        return
    for part in _parts(nest):
        yield from _leaves(part, kind)


def map_tensors(nest: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same nest with every tensor replaced; its containers are new objects of the same types."""
    return rebuild(nest, Tensor, function)


def rebuild(nest: Any, kind: type[T], function: Callable[[T], Any]) -> Any:
    """The same nest with every object of one type replaced by what ``function`` makes of it; the rest is untouched.

    A nest that is an object of a class of somebody's own comes back as a namespace.
    """
    return _rebuild(_opened(nest, kind), kind, function, lambda other: other)


def plain(nest: Any, kind: type) -> Any:
    """The same nest with None for what is neither of this type, nor a container, nor a literal."""

    def literal(other: Any) -> Any:
        return other if isinstance(other, _PLAIN) else None

    return _rebuild(_opened(nest, kind), kind, lambda leaf: leaf, literal)


def _rebuild(nest: Any, kind: type[T], function: Callable[[T], Any], rest: Callable[[Any], Any]) -> Any:
    if isinstance(nest, kind):
        return function(nest)
    if _is_record(nest):
        return _filled(nest, {name: _rebuild(getattr(nest, name), kind, function, rest) for name in _names(nest)})
    if isinstance(nest, Mapping):
        return _mapping(nest, {key: _rebuild(value, kind, function, rest) for key, value in nest.items()})
    if isinstance(nest, list | tuple):
        return _sequence(nest, [_rebuild(part, kind, function, rest) for part in nest])
    return rest(nest)


def _is_container(nest: Any) -> bool:
    return _is_record(nest) or isinstance(nest, Mapping | list | tuple)


def _is_record(nest: Any) -> bool:
    return isinstance(nest, SimpleNamespace) or (dataclasses.is_dataclass(nest) and not isinstance(nest, type))


def _names(record: Any) -> list[str]:
    return list(vars(record)) if isinstance(record, SimpleNamespace) else [f.name for f in dataclasses.fields(record)]


def _opened(nest: Any, kind: type) -> Any:
    """An object of a class that is no container, as a namespace of its attributes."""
    if _is_container(nest) or isinstance(nest, (kind, type, Tensor, torch.nn.Module, *_PLAIN)):
        return nest
    return SimpleNamespace(**vars(nest)) if hasattr(nest, "__dict__") and not callable(nest) else nest


def _parts(nest: Any) -> list[Any]:
    if _is_record(nest):
        return [getattr(nest, name) for name in _names(nest)]
    if isinstance(nest, Mapping):
        return list(nest.values())
    return list(nest) if isinstance(nest, list | tuple) else []


def _mapping(nest: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """A mapping of the same type, whatever its constructor wants, where it can be written to."""
    if not isinstance(nest, MutableMapping):
        return values
    new = copy.copy(nest)
    for key, value in values.items():
        new[key] = value
    return new


def _sequence(nest: Any, parts: list[Any]) -> Any:
    if isinstance(nest, Fields):
        return nest.with_values(parts)
    if isinstance(nest, list):
        new = copy.copy(nest)
        new[:] = parts
        return new
    return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)


def _filled(nest: Any, values: dict[str, Any]) -> Any:
    """A record of the same type with other values, whatever its constructor wants."""
    new: Any = type(nest).__new__(type(nest))  # type: ignore[call-overload]
    new.__dict__.update(getattr(nest, "__dict__", {}))
    if isinstance(new, MutableMapping):  # a mapping and a dataclass at once: its items are its fields
        for name, value in values.items():
            if value is not None:
                new[name] = value
    for name, value in values.items():
        object.__setattr__(new, name, value)
    return new
