"""Calling any model: inputs as a tensor, tuple or mapping; outputs as a tensor or something that holds one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError


def call(model: nn.Module, example_inputs: Any) -> Any:
    """``model`` on a tensor, on a tuple of arguments, or on a mapping of named arguments."""
    if isinstance(example_inputs, Mapping):
        return model(**example_inputs)
    if isinstance(example_inputs, tuple | list):
        return model(*example_inputs)
    return model(example_inputs)


def logits_of(output: Any) -> Tensor:
    """The class scores (n, classes) in a model's output: itself, its entry ``logits``, or the first tensor in it.

    Raises:
        InputError: there is no tensor in it.
    """
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    if not isinstance(found, Tensor):
        found = next((part for part in _parts(output) if isinstance(part, Tensor)), None)
    if found is None:
        raise InputError(
            "The model returned no class scores.", expected="a tensor, or one inside", got=type(output).__name__
        )
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` in eval mode and without gradients; every module's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _parts(output: Any) -> Iterable[Any]:
    if isinstance(output, Mapping):
        return output.values()
    if isinstance(output, tuple | list):
        return output
    if dataclasses.is_dataclass(output):
        return (getattr(output, field.name) for field in dataclasses.fields(output))
    return ()
