"""A model as the program it ran: the same parameters under the same names, and its operators, one after the other."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.arguments import map_in
from metaprune_cli.graph.nest import leaves, rebuild
from metaprune_cli.graph.record import Recording, Size, Step, TypeOf, Value
from metaprune_cli.graph.trace import ExampleInputs

aten = torch.ops.aten

Mode = Literal["eval", "train"]
CONSTANTS = "_constants"
"""The submodule that holds what is neither parameter nor input; its buffers are not in the state dict."""


@dataclass(frozen=True, eq=False)
class Script:
    """One mode of a program, and its compiled form, which copies of the program share.

    Attributes:
        recording: the operators; labels and shapes may be missing.
        constants: number -> name of the program's constant.
        arguments: the model's arguments: name -> the nest that was given, tensors as values.
        batched: the dimension of the first input that is the batch and may have any size; None where sizes are fixed.
        compiled: a function of the inputs, the entries and the constants, in this order.
    """

    recording: Recording
    constants: Mapping[int, str]
    arguments: Mapping[str, Any]
    batched: int | None
    compiled: fx.GraphModule = field(init=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Script:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        from metaprune_cli.graph.program_document import script_from_document, script_to_document

        return script_from_document, (script_to_document(self),)

    def __post_init__(self) -> None:
        """Compile at once: ``torch.compile`` cannot follow what is made on first use."""
        graph = _graph(self.recording, self.constants, self.batched or 0)
        object.__setattr__(self, "compiled", fx.GraphModule(nn.Module(), graph))


class Program(nn.Module):
    """Runs the operators that a model ran; what a model becomes where its class cannot follow a removal.

    Parameters and buffers have the model's names. ``train()`` and ``eval()`` choose between the two modes it was
    recorded in. It needs nothing of the model's class, can be copied, pickled, finetuned and exported.
    """

    def __init__(
        self,
        scripts: Mapping[Mode, Script],
        entries: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        examples: Sequence[tuple[tuple[int, ...], torch.dtype]],
    ) -> None:
        """Put a program together.

        Args:
            scripts: its modes; ``eval`` at least.
            entries: parameters and buffers by state-dict name; a shared tensor appears under all of its names.
            constants: by name.
            examples: shape and type of every input it was recorded with, in order.
        """
        super().__init__()
        self.scripts = dict(scripts)
        self.examples = list(examples)
        for name, tensor in entries.items():
            _register(self, name, tensor, persistent=True)
        for name, tensor in constants.items():
            _register(self, f"{CONSTANTS}.{name}", tensor, persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program of the present mode.

        Raises:
            InputError: other arguments than it was recorded with, or a mode it does not have.
        """
        script = self.scripts.get("train" if self.training else "eval")
        if script is None:
            raise InputError(
                "This program has no training mode.",
                expected="a model that runs in training mode on its example inputs",
                next_step="call eval() first",
            )
        inputs = _bind(script, args, kwargs)
        known = {**dict(self.named_parameters(remove_duplicate=False)), **dict(self.named_buffers())}
        entries = [known[name] for name in script.recording.entries.values()]
        constants = [known[f"{CONSTANTS}.{name}"] for name in script.constants.values()]
        found = iter(script.compiled(*inputs, *entries, *constants))
        return rebuild(script.recording.outputs, Value, lambda _: next(found))

    def example_inputs(self) -> dict[str, Any]:
        """Zeros of the shapes it was recorded with, by argument."""
        made = iter([torch.zeros(shape, dtype=dtype) for shape, dtype in self.examples])
        return {
            name: rebuild(nest, Value, lambda _: next(made)) for name, nest in self.scripts["eval"].arguments.items()
        }

    def extra_repr(self) -> str:
        """Its modes and their lengths."""
        return ", ".join(f"{mode}: {len(script.recording.steps)} operators" for mode, script in self.scripts.items())


def arguments_of(model: nn.Module, example_inputs: ExampleInputs) -> dict[str, Any]:
    """The example inputs by the names of the arguments they are for."""
    if isinstance(example_inputs, dict):
        return dict(example_inputs)
    given = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    return dict(zip(_names(model, len(given)), given, strict=True))


def _names(model: nn.Module, count: int) -> list[str]:
    if isinstance(model, Program):
        return list(model.scripts["eval"].arguments)[:count]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    return (names + [f"argument_{i}" for i in range(len(names), count)])[:count]


def _bind(script: Script, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    names = list(script.arguments)
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    if len(args) > len(names) or not given.keys() <= set(names):
        unknown = sorted(given.keys() - set(names)) or [f"{len(args)} positional"]
        raise InputError(
            "The program does not take these arguments.", expected=", ".join(names), got=", ".join(unknown)
        )
    inputs: list[Tensor] = []
    for name, nest in script.arguments.items():
        wanted = list(leaves(nest, Value))
        tensors = list(leaves(given.get(name), Tensor))
        if len(tensors) != len(wanted):
            raise InputError(
                f"The argument {name} has another number of tensors than the program was recorded with.",
                expected=len(wanted),
                got=len(tensors),
            )
        if not wanted and name in given and given[name] != nest:
            raise InputError(
                f"The program was recorded with another value of {name}.", expected=repr(nest), got=repr(given[name])
            )
        inputs += tensors
    return inputs


def _register(module: nn.Module, name: str, tensor: Tensor, *, persistent: bool) -> None:
    path, _, leaf = name.rpartition(".")
    for part in path.split(".") if path else []:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(leaf, tensor)
    else:
        module.register_buffer(leaf, tensor, persistent=persistent)


def _graph(recording: Recording, constants: Mapping[int, str], axis: int) -> fx.Graph:
    graph = fx.Graph()
    nodes: dict[int, fx.Node] = {n: graph.placeholder(f"input_{i}") for i, n in enumerate(recording.inputs)}
    nodes |= {n: graph.placeholder(f"entry_{i}") for i, n in enumerate(recording.entries)}
    nodes |= {n: graph.placeholder(f"constant_{i}") for i, n in enumerate(constants)}
    first = nodes[recording.inputs[0]] if recording.inputs else None
    sizes = _Sizes(graph, first, axis)
    repeated = repeated_matrices(recording.steps)
    grad = True
    for step in recording.steps:
        if step.grad is not grad:
            grad = step.grad
            graph.call_function(torch._C._set_grad_enabled, (grad,))
        args, kwargs = map_in(Value, lambda v: nodes[v.number], (step.args, step.kwargs))
        args, kwargs = map_in(Size, sizes, (args, kwargs))
        args, kwargs = map_in(TypeOf, lambda t: sizes.dtype(nodes[t.number]), (args, kwargs))
        args, kwargs = map_in(torch.device, lambda _: sizes.device(), (args, kwargs))
        if step.outputs[0] in repeated:
            made = graph.call_function(_times_matrix, (args[0], nodes[repeated[step.outputs[0]]]))
        else:
            made = graph.call_function(step.operator, args, kwargs)
        for i, number in enumerate(step.outputs):
            if number is not None:
                nodes[number] = made if step.single else graph.call_function(_item, (made, i))
    if not grad:
        graph.call_function(torch._C._set_grad_enabled, (True,))
    graph.output(tuple(nodes[v.number] for v in leaves(recording.outputs, Value)))
    return graph


def repeated_matrices(steps: Sequence[Step]) -> dict[int, int]:
    """The batched products by one matrix that is repeated for every item: their outputs -> the matrix.

    PyTorch writes a linear layer so where its input does not lie in memory row by row. A product with a repeated
    matrix reads it once for every item, which takes many times longer than one product of all rows.
    """
    matrices: set[int] = set()
    repeated: dict[int, tuple[int, list[Any]]] = {}
    found: dict[int, int] = {}
    for step in steps:
        number, (made, *_) = next(iter(step.inputs()), -1), step.outputs
        if made is None:
            continue
        if step.operator is aten.t.default:
            matrices.add(made)
        elif step.operator is aten.expand.default and number in matrices and len(step.args[1]) > 2:
            repeated[made] = number, list(step.args[1][-2:])
        elif step.operator is aten.view.default and number in repeated and step.args[1][-2:] == repeated[number][1]:
            repeated[made] = repeated[number]
        elif step.operator is aten.bmm.default and step.args[1].number in repeated:
            found[made] = repeated[step.args[1].number][0]
    return found


def _times_matrix(batch: Tensor, matrix: Tensor) -> Tensor:
    """(b, n, k) times (k, m), as one product."""
    return (batch.reshape(-1, batch.shape[-1]) @ matrix).view(*batch.shape[:-1], -1)


def _item(values: Sequence[Any], index: int) -> Any:
    return values[index]


class _Sizes:
    """Sizes that depend on the batch, and the device, as nodes that are made once, right after the inputs."""

    def __init__(self, graph: fx.Graph, first: fx.Node | None, axis: int) -> None:
        self._graph, self._first, self._axis = graph, first, axis
        self._known: dict[tuple[int, int], fx.Node] = {}
        self._batch: fx.Node | None = None
        self._device: fx.Node | None = None
        self._types: dict[fx.Node, fx.Node] = {}

    def __call__(self, size: Size) -> fx.Node:
        if self._batch is None:
            self._batch = self._graph.call_function(torch.ops.aten.sym_size.int, (self._first, self._axis))
        key = (size.fixed, size.per_item)
        if key not in self._known:
            scaled = self._graph.call_function(operator.mul, (self._batch, size.per_item))
            self._known[key] = self._graph.call_function(operator.add, (scaled, size.fixed))
        return self._known[key]

    def device(self) -> fx.Node:
        """The device of the first input."""
        if self._device is None:
            self._device = self._graph.call_function(getattr, (self._first, "device"))
        return self._device

    def dtype(self, entry: fx.Node) -> fx.Node:
        """The type of an entry."""
        if entry not in self._types:
            self._types[entry] = self._graph.call_function(getattr, (entry, "dtype"))
        return self._types[entry]
