"""A program as JSON, and back: operators by name, nothing that could run code of anybody's."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from typing import Any

import torch

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.program import Script
from metaprune_cli.graph.record import Recording, Size, Step, TypeOf, Value

_LIBRARIES = ("aten", "torchvision")
_REFUSED = frozenset({"from_file", "save", "_print"})
"""Operators that touch more than tensors."""


def script_to_document(script: Script) -> dict[str, Any]:
    """The script as JSON values."""
    recording = script.recording
    return {
        "batched": script.batched,
        "arguments": [[name, _pack(nest)] for name, nest in script.arguments.items()],
        "inputs": list(recording.inputs),
        "entries": [[number, name] for number, name in recording.entries.items()],
        "constants": [[number, name] for number, name in script.constants.items()],
        "outputs": _pack(recording.outputs),
        "steps": [_step_to_document(step) for step in recording.steps],
    }


def script_from_document(document: Mapping[str, Any]) -> Script:
    """The inverse of :func:`script_to_document`.

    Named tuples and dataclasses come back as new types of the same names and fields.

    Raises:
        CorruptFileError: the document is none of ours, or names an operator that does not exist here.
    """
    try:
        recording = Recording(
            steps=tuple(_step_from_document(step) for step in document["steps"]),
            values=(),
            inputs=tuple(document["inputs"]),
            entries=dict(document["entries"]),
            constants={},
            outputs=_unpack(document["outputs"]),
        )
        arguments = {name: _unpack(nest) for name, nest in document["arguments"]}
        return Script(recording, dict(document["constants"]), arguments, document["batched"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptFileError(
            "The program in the file cannot be read.", got=f"{type(error).__name__}: {error}"
        ) from error


def _step_to_document(step: Step) -> dict[str, Any]:
    document: dict[str, Any] = {
        "operator": str(step.operator),
        "args": [_pack(arg) for arg in step.args],
        "outputs": step.outputs,
    }
    if step.kwargs:
        document["kwargs"] = {name: _pack(arg) for name, arg in step.kwargs.items()}
    if step.single:
        document["single"] = True
    if not step.grad:
        document["grad"] = False
    return document


def _step_from_document(document: Any) -> Step:
    return Step(
        operator=_operator(document["operator"]),
        args=tuple(_unpack(arg) for arg in document["args"]),
        kwargs={name: _unpack(arg) for name, arg in document.get("kwargs", {}).items()},
        outputs=tuple(document["outputs"]),
        single=document.get("single", False),
        labels={},
        grad=document.get("grad", True),
    )


def _operator(name: str) -> Any:
    """An overload by its name.

    Raises:
        CorruptFileError: there is no such operator, or it is none of a network's.
    """
    library, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    if library in _LIBRARIES and packet not in _REFUSED:
        if library == "torchvision":
            import torchvision  # noqa: F401 - registers its operators
        found = getattr(getattr(getattr(torch.ops, library), packet, None), overload, None)
        if isinstance(found, torch._ops.OpOverload):
            return found
    raise CorruptFileError(
        f"The program calls {name}, which is not an operator here.",
        expected="operators of PyTorch and torchvision",
        next_step="update torch, or use the version the file was made with",
    )


_NAMED: dict[str, tuple[type, str]] = {
    "dtype": (torch.dtype, "torch."),
    "memory_format": (torch.memory_format, "torch."),
    "layout": (torch.layout, "torch."),
}


def _pack(thing: Any) -> Any:
    """One argument, or a nest of them, as JSON; whatever is not plain JSON is an object with one key that says what."""
    if isinstance(thing, Value):
        return {"value": thing.number}
    if isinstance(thing, Size):
        return {"size": [thing.fixed, thing.per_item]}
    if isinstance(thing, TypeOf):
        return {"type_of": [thing.number, str(thing.now).removeprefix("torch.")]}
    if isinstance(thing, torch.device):
        return {"device": None}
    for key, (kind, prefix) in _NAMED.items():
        if isinstance(thing, kind):
            return {key: str(thing).removeprefix(prefix)}
    if isinstance(thing, float) and not math.isfinite(thing):
        return {"float": str(thing)}
    if isinstance(thing, complex):
        return {"complex": [thing.real, thing.imag]}
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    return _pack_nest(thing)


def _pack_nest(nest: Any) -> Any:
    if isinstance(nest, list):
        return [_pack(part) for part in nest]
    if isinstance(nest, tuple) and not hasattr(nest, "_fields"):
        return {"tuple": [_pack(part) for part in nest]}
    if isinstance(nest, Mapping) and not dataclasses.is_dataclass(nest):
        kind = "ordered" if isinstance(nest, OrderedDict) else "dict"
        return {kind: [[_pack(key), _pack(value)] for key, value in nest.items()]}
    if hasattr(nest, "_fields"):
        return {"named": [type(nest).__name__, [[f, _pack(getattr(nest, f))] for f in nest._fields]]}
    if dataclasses.is_dataclass(nest):
        fields = [[f.name, _pack(getattr(nest, f.name))] for f in dataclasses.fields(nest)]
        return {"dataclass": [type(nest).__name__, fields]}
    raise TypeError(f"a {type(nest).__name__} among the arguments of the program cannot be written to a file")


def _unpack(thing: Any) -> Any:
    if isinstance(thing, list):
        return [_unpack(part) for part in thing]
    if not isinstance(thing, dict):
        return thing
    ((kind, content),) = thing.items()
    return _UNPACK[kind](content)


def _pairs(content: Any) -> list[tuple[Any, Any]]:
    return [(_unpack(key), _unpack(value)) for key, value in content]


def _named_tuple(content: Any) -> Any:
    name, fields = content
    values = _pairs(fields)
    return namedtuple(name, [field for field, _ in values])(*(value for _, value in values))


def _dataclass(content: Any) -> Any:
    name, fields = content
    values = _pairs(fields)
    return dataclasses.make_dataclass(name, [field for field, _ in values])(*(value for _, value in values))


def _torch(content: str) -> Any:
    return getattr(torch, content)


_UNPACK: dict[str, Callable[[Any], Any]] = {
    "value": Value,
    "size": lambda content: Size(content[0], content[1], 0),
    "type_of": lambda content: TypeOf(content[0], _torch(content[1])),
    "device": lambda _: torch.device("cpu"),
    "dtype": _torch,
    "memory_format": _torch,
    "layout": _torch,
    "float": float,
    "complex": lambda content: complex(*content),
    "tuple": lambda content: tuple(_unpack(part) for part in content),
    "dict": lambda content: dict(_pairs(content)),
    "ordered": lambda content: OrderedDict(_pairs(content)),
    "named": _named_tuple,
    "dataclass": _dataclass,
}
