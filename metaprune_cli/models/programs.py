"""Models that are programs, in artifacts: everything to run them is in the file, no code of anybody's is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import CorruptFileError, MetapruneError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.program.document import script_from_document, script_to_document
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.program.rehearsal import bends, rehearse
from metaprune_cli.graph.program.script import CONSTANTS, Mode, Script
from metaprune_cli.graph.program.values import DTYPES, items, named, number, text
from metaprune_cli.graph.program.varying import inputs_at
from metaprune_cli.graph.trace.choices import ALL, Choices
from metaprune_cli.graph.trace.passes import repeated
from metaprune_cli.graph.trace.tracer import ExampleInputs

KEY = "program"
"""The entry of an artifact's document that holds a program."""
_LARGEST_EXAMPLE = 2**30
"""How many bytes an input of the example may have."""


def program_to_document(program: Program) -> dict[str, Any]:
    """What an artifact's document says of a program, beside its tensors (see :func:`tensors_of`)."""
    return {
        "scripts": {mode: script_to_document(script) for mode, script in program.scripts.items()},
        "parameters": {
            name: parameter.requires_grad for name, parameter in program.named_parameters(remove_duplicate=False)
        },
        "order": list(program.state_dict()),
        "examples": [[list(shape), str(dtype).removeprefix("torch.")] for shape, dtype in program.examples],
    }


def tensors_of(program: Program) -> dict[str, Tensor]:
    """The state dict, and the constants that are not in it."""
    return {**program.state_dict(), **constants_of(program)}


def constants_of(program: Program) -> dict[str, Tensor]:
    """The constants, by the names they have among the program's buffers."""
    return {name: t for name, t in program.named_buffers() if name.startswith(f"{CONSTANTS}.")}


def program_from_document(document: Any, tensors: Mapping[str, Tensor]) -> Program:
    """The inverse of the two above; in eval mode, and over the tensors themselves.

    A file may come from anybody: what it says is checked, and each mode is run on meta before it is handed out.

    Raises:
        CorruptFileError: the document is none of ours, tensors are missing, or the program does not run.
    """
    try:
        program = _put_together(document, tensors)
        for script in _ways(program.scripts):
            _rehearse(program, script)
    except CorruptFileError:
        raise
    except (
        *(LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, MetapruneError),
    ) as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise CorruptFileError("The program in the file cannot be put together.", got=what) from error
    return program


def _put_together(document: Any, tensors: Mapping[str, Tensor]) -> Program:
    modes: dict[str, Any] = document["scripts"]
    if not {"eval"} <= modes.keys() <= {"eval", "train"}:
        raise CorruptFileError("The program in the file has other modes than eval and train.")
    scripts: dict[Mode, Script] = {mode: script_from_document(script) for mode, script in modes.items()}  # type: ignore[misc]
    examples = [_example(items(example, 2)) for example in items(document["examples"])]
    inputs = {len(script.recording.inputs) for script in _ways(scripts)}
    if inputs != {len(examples)}:
        raise CorruptFileError("The program in the file takes other inputs than its example.")
    places = [place for script in _ways(scripts) for size in script.varies or () for place in size.places]
    if any(dim >= len(examples[at][0]) for at, dim in places):
        raise CorruptFileError("A size of the program in the file is of no input.")
    entries, constants = _tensors(document, tensors)
    for script in _ways(scripts):
        missing = (
            set(script.recording.entries.values()) - entries.keys() | set(script.constants.values()) - constants.keys()
        )
        if missing:
            raise CorruptFileError("The file lacks tensors of its program.", got=", ".join(sorted(missing)[:10]))
    return Program(scripts, entries, constants, examples).eval()


def _ways(scripts: Mapping[Mode, Script]) -> list[Script]:
    """All that may run."""
    return [way for script in scripts.values() for way in script.ways]


def _example(pair: list[Any]) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of an input."""
    shape, dtype = tuple(number(size) for size in items(pair[0])), named(pair[1], DTYPES)
    _check_proportion(shape, dtype)
    return shape, dtype


def _check_proportion(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if math.prod(shape) * dtype.itemsize > _LARGEST_EXAMPLE or len(shape) > 32:
        raise CorruptFileError("The program in the file wants an input out of all proportion.", got=str(shape)[:100])


def _tensors(document: Any, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers, and constants, each by name and in order."""
    wanted: dict[str, bool] = document["parameters"]
    made: dict[int, nn.Parameter] = {}
    entries: dict[str, Tensor] = {}
    constants: dict[str, Tensor] = {}
    order = [text(name) for name in items(document["order"])]
    for name in [*order, *sorted(tensors.keys() - set(order))]:
        if not all(name.split(".")) or any(part.startswith("__") for part in name.split(".")):
            raise CorruptFileError("The program in the file has an entry without a proper name.", got=repr(name)[:100])
        tensor = tensors[name]
        if name.startswith(f"{CONSTANTS}."):
            constants[name.removeprefix(f"{CONSTANTS}.")] = tensor
        elif name not in wanted:
            entries[name] = tensor
        elif type(wanted[name]) is bool:
            entries[name] = made.setdefault(id(tensor), nn.Parameter(tensor, wanted[name]))
        else:
            raise CorruptFileError("The program in the file does not say whether a parameter is trained.", got=name)
    return entries, constants


def _rehearse(program: Program, script: Script) -> None:
    """Run one mode on meta at the sizes it was recorded at: the first of them, two where sizes may bend.

    The first time all is chosen that data may choose.
    """
    held = {**dict(program.named_parameters(remove_duplicate=False)), **dict(program.named_buffers())}
    recording = script.recording
    entries = {n: held[name] for n, name in recording.entries.items()}
    constants = {n: held[f"{CONSTANTS}.{name}"] for n, name in script.constants.items()}
    example = program.example_inputs("meta")
    for choices, given in zip((ALL, 1), _given(example, script, several=bends(recording.steps)), strict=False):
        inputs = list(leaves(given, Tensor))
        for tensor in inputs:
            _check_proportion(tuple(tensor.shape), tensor.dtype)
        rehearse(
            recording.steps, dict(zip(recording.inputs, inputs, strict=True)), entries, constants, Choices(choices)
        )


def _given(example: ExampleInputs, script: Script, *, several: bool) -> list[ExampleInputs]:
    """What a program is tried out on."""
    if script.varies is None:
        return [repeated(example, times) for times in ((2, 5) if several else (2,))]
    recorded = min((len(size.recorded) for size in script.varies), default=1)
    return [inputs_at(example, script.varies, point) for point in range(min(recorded, 2 if several else 1))]
