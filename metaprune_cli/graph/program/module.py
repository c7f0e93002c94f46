"""A model as the program it ran: the same parameters under the same names, and its operators, one after the other."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves, rebuild
from metaprune_cli.graph.program.document import script_from_document, script_to_document
from metaprune_cli.graph.program.interpreter import OtherwiseError
from metaprune_cli.graph.program.made_for import is_made_for, of_other_sizes, was_recorded
from metaprune_cli.graph.program.script import CONSTANTS, Mode, Script
from metaprune_cli.graph.trace.record import Value
from metaprune_cli.graph.trace.tracer import ExampleInputs


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
            InputError: other arguments or sizes than it was made for, or a mode it does not have.
        """
        script = self.scripts.get("train" if self.training else "eval")
        if script is None:
            raise InputError(
                "This program has no training mode.",
                expected="a model that runs in training mode on its example inputs",
                next_step="call eval() first",
            )
        return self._run(script, args, kwargs) if not script.answers else self._asking(script, args, kwargs)

    def _asking(self, script: Script, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run one way, and where data answers a question otherwise, the one for that answer from the start."""
        drawn = _random_state() if self.training else None
        way = script
        for _ in script.ways:  # each answer that is found leaves fewer; a file may say what it likes
            try:
                return self._run(way, args, kwargs)
            except OtherwiseError as error:
                so_far = error.args
            found = [other for other in script.ways if other.answers[: len(so_far)] == so_far]
            if not found:
                break
            way = found[0]
            if drawn is not None:
                _set_random_state(drawn)  # what was drawn before the question is drawn again
        raise InputError(
            "This program was not made for such inputs: where its flow depends on data, the model did not run so.",
            next_step="check the inputs, or prune with --route class",
        )

    def _run(self, script: Script, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        inputs = _bind(script, args, kwargs)
        if script.varies is not None and not is_made_for(script.varies, self.examples, inputs):
            raise of_other_sizes(script.varies, self.examples, script.arguments, inputs)
        held = [_tensor(self, path) for path in script.paths]
        try:
            found = iter(script.interpreter([*inputs, *held]))
        except (RuntimeError, IndexError, ValueError, ArithmeticError) as error:
            if isinstance(error, torch.OutOfMemoryError) or was_recorded(script.varies or (), inputs):
                raise
            raise of_other_sizes(script.varies or (), self.examples, script.arguments, inputs) from error
        return rebuild(script.recording.outputs, Value, lambda _: next(found))

    def example_inputs(self, device: str = "cpu") -> dict[str, Any]:
        """Zeros of the shapes it was recorded with, by argument."""
        made = iter([torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in self.examples])
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


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def _tensor(module: nn.Module, path: Sequence[str]) -> Tensor:
    """A parameter or buffer; to list all of a model's takes longer than a small pass."""
    for part in path[:-1]:
        module = module._modules[part]  # type: ignore[assignment]
    found = module._parameters.get(path[-1])
    return getattr(module, path[-1]) if found is None else found


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


def _reduced(script: Script) -> tuple[Any, ...]:
    return script_from_document, (script_to_document(script),)


copyreg.pickle(Script, _reduced)  # a pickled script is what a file holds, checked as one is
