"""A model of a suite and what it takes: as its architecture says, as the suite says, or as the user's table says."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.models import build
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.examples import example_inputs
from metaprune_cli.models.importing import import_object
from metaprune_cli.models.registry import with_input_shape
from metaprune_cli.workflows.coverage.entry import Entry


@dataclass(frozen=True, eq=False)
class Subject:
    """What is tried.

    Attributes:
        model: with random weights, in training mode.
        architecture: by which it can be built again; None where only a table can.
        inputs: what it takes; None: as the architecture says.
        other: inputs of another length or size, where the suite says some.
    """

    model: nn.Module
    architecture: Architecture | None
    inputs: ExampleInputs | None
    other: ExampleInputs | None


def made(entry: Entry, seed: int) -> Subject:
    """Build the model of an entry.

    Raises:
        InputError: it cannot be built, or the suite does not say how.
    """
    torch.manual_seed(seed)
    if entry.table is not None:
        return _from_table(entry, entry.table)
    architecture = with_input_shape(entry.architecture)
    inputs = None if entry.inputs is None else tensors_of(entry.inputs)
    return Subject(build(architecture), architecture, inputs, None)


def inputs_of(subject: Subject) -> ExampleInputs:
    """What the suite says, else what the architecture says."""
    if subject.inputs is not None:
        return subject.inputs
    assert subject.architecture is not None
    return example_inputs(subject.architecture, subject.model)


def tensors_of(said: Mapping[str, Any] | list[Any]) -> ExampleInputs:
    """Inputs from data.

    A list of sizes is a normal tensor, ``{value: ...}`` what it says, ``{below: N, shape: ...}`` holds whole numbers.

    Raises:
        InputError: something else is said.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(said, Mapping):
        return {name: _tensor(value, generator) for name, value in said.items()}
    return tuple(_tensor(value, generator) for value in said)


def _tensor(said: Any, generator: torch.Generator) -> Tensor:
    try:
        if isinstance(said, list):
            return torch.randn(said, generator=generator)
        if "below" in said:
            return torch.randint(said["below"], said["shape"], generator=generator)
        return torch.tensor(said["value"])
    except (TypeError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            "The suite does not say what a model takes.",
            expected="sizes of a tensor, {value: ...} or {below: N, shape: [...]}",
            got=str(said)[:200],
        ) from error


def _from_table(entry: Entry, table: str) -> Subject:
    module, _, name = entry.arch.partition(":")
    row = import_object(f"{module}:{table}", "table", where="--suite")[entry.name]
    found = import_object(f"{module}:__dict__", "module", where="--suite")
    other = row.get("alt")
    architecture = Architecture(entry.arch) if callable(found.get(name)) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Subject(row["build"](), architecture, row["inputs"](), other() if callable(other) else other)
