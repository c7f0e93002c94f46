"""A model as one graph of ATen operators (``torch.export``), from which three of the four formats are made."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves, map_tensors
from metaprune_cli.graph.program.module import Program, arguments_of
from metaprune_cli.graph.trace.passes import batch_axis
from metaprune_cli.graph.trace.tracer import ExampleInputs, call
from metaprune_cli.models import Architecture
from metaprune_cli.workflows.inputs import random_inputs

BATCH = "batch"


@dataclass(frozen=True, eq=False)
class Subject:
    """What is exported.

    Attributes:
        model: the model, in eval mode on the CPU.
        example: one item of what it takes.
        architecture: what it is, if that is known.
        static: the one batch size that the export is for; None: any.
    """

    model: nn.Module
    example: ExampleInputs
    architecture: Architecture | None
    static: int | None

    @cached_property
    def graph(self) -> ExportedProgram:
        """The model captured by ``torch.export``, once for all formats.

        Raises:
            InputError: it cannot be captured, or not for every batch size.
        """
        inputs = self.inputs(self.static or 2)  # a batch of one would be taken for a constant
        with quietly(), torch.no_grad():
            try:
                args, kwargs = _arguments(inputs)
                shapes = None if self.static else self._shapes()
                return _without_paths(torch.export.export(self.model, args, kwargs, dynamic_shapes=shapes))
            except Exception as error:
                raise self._refused(error) from error

    def inputs(self, batch: int, seed: int = 0) -> ExampleInputs:
        """Random inputs of this many items."""
        return random_inputs(self.example, batch, seed)

    def input_names(self) -> list[str]:
        """A name for each input tensor: the argument's, numbered where it holds several."""
        return names_of(arguments_of(self.model, self.example))

    def output_names(self) -> list[str]:
        """A name for each output tensor: the keys of a mapping, else ``output``, numbered where there are several."""
        with torch.no_grad():
            found = call(self.model, self.example)
        return names_of(found if isinstance(found, dict) else {"output": found})

    def _shapes(self) -> Any:
        """The batch, as the dimension that may have any size, in the shape of the arguments."""
        dim = Dim(BATCH)

        def of(tensor: Tensor) -> dict[int, Any]:
            axis = batch_axis(tensor, self.example)
            return {} if axis is None else {axis: dim}

        args, kwargs = _arguments(self.example)
        shapes = map_tensors(kwargs or args, of)
        takes_anything = isinstance(self.model, Program)  # its forward has *args and **kwargs
        return (shapes,) if takes_anything and not kwargs else shapes

    def _refused(self, error: Exception) -> InputError:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        return InputError(
            f"torch.export cannot capture this {type(self.model).__name__}"
            + (f" for a batch of {self.static}." if self.static else " for any batch size."),
            expected="a model whose control flow does not depend on data",
            got=f"{type(error).__name__}: {first}"[:400],
            next_step="--format safetensors needs no capture"
            if self.static
            else "--static-batch 1, if one batch size is enough; --format safetensors needs no capture",
        )


def _without_paths(graph: ExportedProgram) -> ExportedProgram:
    """The graph without the lines of source that its operators come from: they name files of this machine."""
    for module in graph.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return graph


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of exporters: they are about their own insides, and the file is checked afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def names_of(named: dict[str, Any]) -> list[str]:
    """A name for each tensor in a mapping of nests, in order."""
    names = []
    for name, nest in named.items():
        count = len(list(leaves(nest, Tensor)))
        names += [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
    return names


def flat(inputs: ExampleInputs) -> list[Tensor]:
    """The tensors among the inputs, in the order of the captured graph."""
    return [leaf for leaf in pytree.tree_leaves(_arguments(inputs)) if isinstance(leaf, Tensor)]


def _arguments(inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
