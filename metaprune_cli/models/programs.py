"""Models that are programs, in artifacts: everything to run them is in the file, no code of anybody's is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.program import CONSTANTS, Program
from metaprune_cli.graph.program_document import script_from_document, script_to_document

KEY = "program"
"""The entry of an artifact's document that holds a program."""


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


def program_from_document(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Program:
    """The inverse of the two above; in eval mode, and over the tensors themselves.

    Raises:
        CorruptFileError: the document is none of ours, or tensors are missing.
    """
    try:
        scripts = {mode: script_from_document(script) for mode, script in document["scripts"].items()}
        wanted: Mapping[str, bool] = document["parameters"]
        examples = [(tuple(shape), getattr(torch, dtype)) for shape, dtype in document["examples"]]
        made: dict[int, nn.Parameter] = {}
        entries: dict[str, Tensor] = {}
        constants: dict[str, Tensor] = {}
        order = [*document["order"], *sorted(tensors.keys() - set(document["order"]))]
        for name in order:
            tensor = tensors[name]
            if name.startswith(f"{CONSTANTS}."):
                constants[name.removeprefix(f"{CONSTANTS}.")] = tensor
            elif name in wanted:
                entries[name] = made.setdefault(id(tensor), nn.Parameter(tensor, wanted[name]))
            else:
                entries[name] = tensor
        names = {name for script in scripts.values() for name in script.recording.entries.values()}
        names |= {f"{CONSTANTS}.{name}" for script in scripts.values() for name in script.constants.values()}
        if missing := sorted(names - tensors.keys()):
            raise KeyError(", ".join(missing[:10]))
        program = Program(scripts, entries, constants, examples).eval()
        _ = scripts["eval"]
        return program
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptFileError("The program in the file cannot be put together.", got=str(error)) from error
