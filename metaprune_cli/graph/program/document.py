"""A program as JSON, and back: operators out of an allow-list, arguments as their schemas say, nobody's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.arguments import found_in, map_in
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.program.allowed import operator_named
from metaprune_cli.graph.program.script import Script, Varying
from metaprune_cli.graph.program.values import BATCH, items, number, pack, text, unpack
from metaprune_cli.graph.trace.record import READ, Recording, Step, TypeOf, Value
from metaprune_cli.graph.trace.sizes import Extent, Size, extents, replaced

_KINDS: dict[str, tuple[type, ...]] = {
    "Tensor": (Value, int, float, complex, bool, Size),  # PyTorch takes numbers for tensors without dimensions
    "int": (int, Size),
    "float": (int, float, Size),
    "number": (int, float, complex, bool, Size),
    "complex": (int, float, complex),
    "bool": (bool,),
    "str": (str,),
    "ScalarType": (torch.dtype, TypeOf),
    "Layout": (torch.layout,),
    "MemoryFormat": (torch.memory_format,),
    "Device": (torch.device,),
}
"""What an argument may be, by its type in an operator's schema; there are no generators in files."""
_LONGEST = 2**20
"""How many parts a list among the arguments may have."""
_WAYS = 64
"""How many other ways a program may run, by what its data says."""


def script_to_document(script: Script) -> dict[str, Any]:
    """The script as JSON values."""
    recording = script.recording
    return {
        "varies": None if script.varies is None else [_varying_to_document(size) for size in script.varies],
        "arguments": [[name, pack(nest)] for name, nest in script.arguments.items()],
        "inputs": list(recording.inputs),
        "entries": [[number, name] for number, name in recording.entries.items()],
        "constants": [[number, name] for number, name in script.constants.items()],
        "outputs": pack(recording.outputs),
        "steps": [_step_to_document(step) for step in recording.steps],
        **({"otherwise": [script_to_document(way) for way in script.otherwise]} if script.otherwise else {}),
    }


def script_from_document(document: Any) -> Script:
    """The inverse of :func:`script_to_document`.

    Named tuples and dataclasses come back as :class:`Fields`: a file makes no classes.

    Raises:
        CorruptFileError: the document is none of ours, names an operator that a program may not call here, or gives one
            arguments that are not those of its schema.
    """
    try:
        return _script(document)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CorruptFileError(
            "The program in the file cannot be read.", got=f"{type(error).__name__}: {str(error)[:200]}"
        ) from error


def _script(document: Any, *, inner: bool = False) -> Script:
    recording = Recording(
        steps=tuple(_step_from_document(step) for step in items(document["steps"])),
        values=(),
        inputs=tuple(number(n) for n in items(document["inputs"])),
        entries=_numbered(document["entries"]),
        constants={},
        outputs=unpack(document["outputs"]),
    )
    constants = _numbered(document["constants"])
    pairs = [items(pair, 2) for pair in items(document["arguments"])]
    arguments = {text(name): unpack(nest) for name, nest in pairs}
    if "varies" in document:
        said, inputs = document["varies"], len(recording.inputs)
        varies = None if said is None else tuple(_varying(size, inputs) for size in items(said))
    else:
        varies = () if document["batched"] is None else None
        recording = _of_the_batch(recording, document["batched"])
    if [v.number for v in leaves(arguments, Value)] != list(recording.inputs):
        raise CorruptFileError("The program's arguments do not hold its inputs.")
    _check_order(recording, constants)
    otherwise = () if inner else tuple(_script(way, inner=True) for way in items(document.get("otherwise", [])))
    if (inner and "otherwise" in document) or len(otherwise) > _WAYS:
        raise CorruptFileError("The program in the file runs in too many ways.")
    if any(len(way.recording.inputs) != len(recording.inputs) for way in otherwise):
        raise CorruptFileError("The program in the file takes other inputs where its data is other.")
    return Script(recording, constants, arguments, varies, otherwise)


def _varying_to_document(size: Varying) -> list[Any]:
    return [[list(place) for place in size.places], list(size.recorded), size.step]


def _varying(document: Any, inputs: int) -> Varying:
    places, recorded, step = items(document, 3)
    found = [items(place, 2) for place in items(places)]
    return Varying(
        tuple((number(at, 0, inputs - 1), number(dim, 0, 63)) for at, dim in found),
        tuple(number(size, 0, 2**31) for size in items(recorded)) or (0,),
        None if step is None else number(step, 1, 2**31),
    )


def _of_the_batch(recording: Recording, batched: Any) -> Recording:
    """The steps of an older file, whose sizes follow from one dimension of the first input."""
    axis = 0 if batched is None else number(batched, 0, 63)

    def sized(size: Size) -> Size:
        whole = size.expression
        if not recording.inputs or set(extents(whole)) != {BATCH}:
            raise CorruptFileError("The program in the file has sizes that follow from nothing.")
        return Size(replaced(whole, lambda _: Extent(recording.inputs[0], axis)))

    def stepped(step: Step) -> Step:
        args, kwargs = map_in(Size, sized, (step.args, step.kwargs))
        return replace(step, args=args, kwargs=kwargs)

    return replace(recording, steps=tuple(map(stepped, recording.steps)))


def _numbered(pairs: Any) -> dict[int, str]:
    """Numbers with names, each number once."""
    found = {number(key): text(name) for key, name in (items(pair, 2) for pair in items(pairs))}
    if len(found) < len(pairs):
        raise CorruptFileError("The program in the file gives one number to several values.")
    return found


def _check_order(recording: Recording, constants: Mapping[int, str]) -> None:
    """Every value is made before it is used, and once, but where an operator returns what it was given.

    Raises:
        CorruptFileError: one is not.
    """
    given = [*recording.inputs, *recording.entries, *constants]
    known = set(given)
    if len(known) < len(given):
        raise CorruptFileError("The program in the file gives one number to several values.")
    for step in recording.steps:
        types = [kind.number for kind in found_in((step.args, step.kwargs), TypeOf)]
        sizes = [e.number for size in found_in((step.args, step.kwargs), Size) for e in extents(size.expression)]
        missing = {n for n in (*step.inputs(), *sizes) if n not in known} | {
            n for n in types if n not in recording.entries
        }
        if missing:
            raise CorruptFileError(f"Nothing makes the value {min(missing)}, which {step.operator} takes.")
        made = {n for n in step.outputs if n is not None}
        if twice := (made & known) - set(step.inputs()):
            raise CorruptFileError(f"The value {min(twice)} is made twice, the second time by {step.operator}.")
        known |= made
    if lost := {v.number for v in leaves(recording.outputs, Value)} - known:
        raise CorruptFileError(f"Nothing makes the value {min(lost)}, which the program returns.")


def _step_to_document(step: Step) -> dict[str, Any]:
    if step.answer is not None:
        return {"asks": step.inputs()[0], "answer": step.answer}
    document: dict[str, Any] = {
        "operator": str(step.operator),
        "args": [pack(arg) for arg in step.args],
        "outputs": list(step.outputs),
    }
    if step.kwargs:
        document["kwargs"] = {name: pack(arg) for name, arg in step.kwargs.items()}
    if step.single:
        document["single"] = True
    if not step.grad:
        document["grad"] = False
    return document


def _step_from_document(document: Any) -> Step:
    if "asks" in document:
        if type(document["answer"]) is not bool:
            raise CorruptFileError("A question in the program has another answer than yes or no.")
        asked = (Value(number(document["asks"])),)
        return Step(READ, asked, {}, (None,), single=True, labels={}, answer=document["answer"])
    operator = operator_named(document["operator"])
    args = tuple(unpack(arg) for arg in items(document["args"]))
    kwargs = {name: unpack(arg) for name, arg in document.get("kwargs", {}).items()}
    _check_arguments(operator, args, kwargs)
    outputs = tuple(None if n is None else number(n) for n in items(document["outputs"]))
    returns = operator._schema.returns
    if not returns:
        raise CorruptFileError(f"A step of the program makes nothing: {operator}.")
    several = len(returns) > 1 or returns[0].type.kind() == "ListType"
    single, grad = document.get("single", False), document.get("grad", True)
    if single is several or type(single) is not bool or type(grad) is not bool:
        raise CorruptFileError(f"A step of the program does not fit what {operator} returns.")
    if not outputs or (returns[0].type.kind() != "ListType" and len(outputs) != len(returns)):
        raise CorruptFileError(f"A step of the program takes {len(outputs)} values from {operator}.")
    return Step(operator, args, kwargs, outputs, single, {}, grad)


def _check_arguments(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Compare arguments with an operator's schema.

    Raises:
        CorruptFileError: too many, too few, an unknown name, or another type.
    """
    schema = operator._schema.arguments
    places = [argument for argument in schema if not argument.kwarg_only]
    given = dict(zip((argument.name for argument in places), args, strict=False))
    wanted = {argument.name: argument for argument in schema}
    if len(args) > len(places) or not kwargs.keys() <= wanted.keys() - given.keys():
        raise CorruptFileError(f"{operator} does not take these arguments.", got=", ".join(map(str, kwargs))[:200])
    given |= kwargs
    for name, argument in wanted.items():
        if name in given and not _fits(given[name], argument.real_type):
            raise CorruptFileError(f"{operator} takes another {name}.", expected=str(argument.real_type))
        if name not in given and not argument.has_default_value():
            raise CorruptFileError(f"{operator} is not given its {name}.")


def _fits(thing: Any, kind: Any) -> bool:
    if kind.kind() == "OptionalType":
        return thing is None or _fits(thing, kind.getElementType())
    if kind.kind() == "ListType":
        parts = thing if isinstance(thing, list | tuple) else None
        return (
            parts is not None and len(parts) <= _LONGEST and all(_fits(part, kind.getElementType()) for part in parts)
        )
    allowed = _KINDS.get(str(kind), ())
    if isinstance(thing, bool):
        return bool in allowed
    return isinstance(thing, allowed) and (not isinstance(thing, int) or -(2**63) <= thing < 2**63)
