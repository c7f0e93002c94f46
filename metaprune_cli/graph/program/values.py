"""Arguments and results of a program as JSON values, and back: scalars, lists, and names out of fixed tables."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.program.fields import Fields, checked_fields
from metaprune_cli.graph.trace.record import TypeOf, Value
from metaprune_cli.graph.trace.sizes import SIGNS, Expression, Extent, Operation, Size

_DEPTH = 50
"""How deep nests of arguments and results may be."""
_DEEPEST = 12
"""How deep the expression of a size may be."""

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex32),
        *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
    )
}
_FORMATS = {
    str(format_).removeprefix("torch."): format_
    for format_ in (torch.contiguous_format, torch.channels_last, torch.channels_last_3d, torch.preserve_format)
}
_NAMED: dict[str, tuple[type, dict[str, Any]]] = {
    "dtype": (torch.dtype, DTYPES),
    "memory_format": (torch.memory_format, _FORMATS),
    "layout": (torch.layout, {"strided": torch.strided}),
}


def pack(thing: Any) -> Any:
    """One argument, or a nest of them, as JSON; whatever is not plain JSON is an object with one key that says what.

    Raises:
        TypeError: it cannot be written.
    """
    if isinstance(thing, Value):
        return {"value": thing.number}
    if isinstance(thing, Size):
        return {"size": _pack_expression(thing.expression)}
    if isinstance(thing, TypeOf):
        return {"type_of": [thing.number, str(thing.now).removeprefix("torch.")]}
    if isinstance(thing, torch.device):
        return {"device": None}
    for key, (kind, _) in _NAMED.items():
        if isinstance(thing, kind):
            return {key: str(thing).removeprefix("torch.")}
    if isinstance(thing, float) and not math.isfinite(thing):
        return {"float": str(thing)}
    if isinstance(thing, complex):
        return {"complex": [thing.real, thing.imag]}
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    return _pack_nest(thing)


def _pack_expression(expression: Expression) -> Any:
    if isinstance(expression, Extent):
        return ["of", expression.number, expression.dim]
    if isinstance(expression, Operation):
        return [expression.sign, *map(_pack_expression, (expression.left, expression.right))]
    return expression


def _pack_nest(nest: Any) -> Any:
    if isinstance(nest, list):
        return [pack(part) for part in nest]
    if isinstance(nest, Fields):
        return {"named": [nest.__dict__["_title"], [[name, pack(nest[name])] for name in nest.keys()]]}  # noqa: SIM118
    if isinstance(nest, tuple) and not hasattr(nest, "_fields"):
        return {"tuple": [pack(part) for part in nest]}
    if isinstance(nest, Mapping) and not dataclasses.is_dataclass(nest):
        kind = "ordered" if isinstance(nest, OrderedDict) else "dict"
        return {kind: [[pack(key), pack(value)] for key, value in nest.items()]}
    if hasattr(nest, "_fields"):
        return {"named": [type(nest).__name__, [[f, pack(getattr(nest, f))] for f in nest._fields]]}
    if dataclasses.is_dataclass(nest):
        fields = [[f.name, pack(getattr(nest, f.name))] for f in dataclasses.fields(nest)]
        return {"dataclass": [type(nest).__name__, fields]}
    if isinstance(nest, SimpleNamespace):
        return {"dataclass": [type(nest).__name__, [[name, pack(value)] for name, value in vars(nest).items()]]}
    raise TypeError(f"a {type(nest).__name__} among the arguments of the program cannot be written to a file")


def unpack(thing: Any, depth: int = 0) -> Any:
    """The inverse of :func:`pack`; named tuples and dataclasses come back as :class:`Fields`.

    Raises:
        CorruptFileError: it is nothing that :func:`pack` writes.
    """
    if depth > _DEPTH:
        raise CorruptFileError("The program in the file is nested too deeply.", expected=f"{_DEPTH} levels at most")
    if isinstance(thing, list):
        return [unpack(part, depth + 1) for part in thing]
    if not isinstance(thing, dict):
        if thing is None or isinstance(thing, bool | int | float | str):
            return thing
        raise _nothing(thing)
    ((kind, content),) = thing.items() if len(thing) == 1 else (("", None),)
    if kind not in _UNPACK:
        raise _nothing(thing)
    return _UNPACK[kind](content, depth)


def number(thing: Any, low: int = 0, high: int = 2**62) -> int:
    """A whole number within bounds.

    Raises:
        CorruptFileError: it is none.
    """
    if type(thing) is not int or not low <= thing <= high:
        raise _nothing(thing)
    return thing


def text(thing: Any) -> str:
    """A string.

    Raises:
        CorruptFileError: it is none.
    """
    if not isinstance(thing, str):
        raise _nothing(thing)
    return thing


def named(thing: Any, table: Mapping[str, Any]) -> Any:
    """What a table says of a name.

    Raises:
        CorruptFileError: it says nothing.
    """
    if not isinstance(thing, str) or thing not in table:
        raise CorruptFileError(
            "The program in the file names something unknown.", expected=", ".join(table), got=repr(thing)[:100]
        )
    return table[thing]


def items(thing: Any, count: int | None = None) -> list[Any]:
    """A list, of a certain length.

    Raises:
        CorruptFileError: it is none.
    """
    if not isinstance(thing, list) or (count is not None and len(thing) != count):
        raise _nothing(thing)
    return thing


def _nothing(thing: Any) -> CorruptFileError:
    return CorruptFileError("The program in the file cannot be read.", got=_shown(thing))


def _shown(thing: Any) -> str:
    """A little of it: a number may have more digits than Python likes to write, a nest may be deep."""
    if isinstance(thing, str | float | bool | None) or (isinstance(thing, int) and abs(thing) < 10**20):
        return repr(thing[:80] if isinstance(thing, str) else thing)
    return f"a value of the type {type(thing).__name__}"


def _scalar(thing: Any) -> Any:
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    raise _nothing(thing)


def _pairs(content: Any, depth: int) -> list[tuple[Any, Any]]:
    pairs = [items(pair, 2) for pair in items(content)]
    return [(_scalar(key), unpack(value, depth + 1)) for key, value in pairs]


def _mapping(kind: Callable[[list[tuple[Any, Any]]], Any]) -> Callable[[Any, int], Any]:
    return lambda content, depth: kind(_pairs(content, depth))


def _with_fields(content: Any, depth: int) -> Fields:
    title, fields = items(content, 2)
    return checked_fields(title, _pairs(fields, depth))


BATCH = Extent(-1, -1)
"""The batch, in older files, where every size is a constant and so much for each of its items."""


def _size(content: Any, _: int) -> Size:
    if isinstance(content, list) and len(content) == 2:
        fixed, per_item = (number(part, -(2**31), 2**31) for part in content)
        return Size(Operation("+", Operation("*", BATCH, per_item), fixed))
    return Size(_expression(content))


def _expression(content: Any, depth: int = 0) -> Expression:
    """What a size is made of.

    Raises:
        CorruptFileError: it is no expression, is deep, or divides by what is not a positive constant.
    """
    if type(content) is int:
        return number(content, -(2**31), 2**31)
    sign, left, right = items(content, 3)
    if sign == "of":
        return Extent(number(left), number(right, 0, 63))
    if not isinstance(sign, str) or sign not in SIGNS or depth >= _DEEPEST:
        raise _nothing(content)
    made = Operation(sign, _expression(left, depth + 1), _expression(right, depth + 1))
    if sign in ("//", "%") and not (type(made.right) is int and made.right > 0):
        raise _nothing(content)
    if sign == "/" and depth:
        raise _nothing(content)
    return made


def _type_of(content: Any, _: int) -> TypeOf:
    entry, now = items(content, 2)
    return TypeOf(number(entry), named(now, DTYPES))


def _complex(content: Any, _: int) -> complex:
    parts = items(content, 2)
    if any(type(part) not in (int, float) for part in parts):
        raise _nothing(content)
    return complex(*parts)


_FLOATS = {name: float(name) for name in ("nan", "inf", "-inf")}

_UNPACK: dict[str, Callable[[Any, int], Any]] = {
    "value": lambda content, _: Value(number(content)),
    "size": _size,
    "type_of": _type_of,
    "device": lambda *_: torch.device("cpu"),
    **{key: lambda content, _, table=table: named(content, table) for key, (_, table) in _NAMED.items()},  # type: ignore[misc]
    "float": lambda content, _: named(content, _FLOATS),
    "complex": _complex,
    "tuple": lambda content, depth: tuple(unpack(part, depth + 1) for part in items(content)),
    "dict": _mapping(dict),
    "ordered": _mapping(OrderedDict),
    "named": _with_fields,
    "dataclass": _with_fields,
}
