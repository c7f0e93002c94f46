"""Calling any model: inputs as a tensor, tuple or mapping; outputs as a tensor or something that holds one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune_cli.errors import InputError

Function = TypeVar("Function", bound=Callable[..., Any])


def call(model: Callable[..., Any], example_inputs: Any) -> Any:
    """``model`` on a tensor, on a tuple of arguments, or on a mapping of named arguments."""
    if isinstance(example_inputs, Mapping):
        return model(**example_inputs)
    if isinstance(example_inputs, tuple | list):
        return model(*example_inputs)
    return model(example_inputs)


def not_in_inference_mode(function: Function) -> Function:
    """The same where a caller is in ``torch.inference_mode()``, whose tensors can neither be traced nor trained."""
    return torch.inference_mode(False)(function)


def takes_model(function: Function) -> Function:
    """The same where a caller is in ``torch.inference_mode()``, and where ``model`` is none (see ``check_module``)."""
    place = list(inspect.signature(function).parameters).index("model")

    def checked(*given: Any, **named: Any) -> Any:
        if len(given) > place or "model" in named:
            check_module(given[place] if len(given) > place else named["model"])
        return function(*given, **named)

    return not_in_inference_mode(cast(Function, functools.update_wrapper(checked, function)))


def check_module(model: object, where: str = "model") -> None:
    """Make sure that an argument is a module.

    Args:
        model: the argument.
        where: its name.

    Raises:
        InputError: it is none; says how to get one from what it is instead.
    """
    if isinstance(model, nn.Module):
        return
    if isinstance(model, type):
        next_step = f"an instance: {model.__name__}(…)"
    elif isinstance(getattr(model, "model", None), nn.Module):
        next_step = f"the attribute .model of this {type(model).__name__}"
    elif isinstance(model, Mapping):
        next_step = "if these are the weights of a model, build it and call its load_state_dict"
    elif isinstance(model, str | os.PathLike):
        next_step = "if this is a file, open it with load_model"
    else:
        next_step = "the model itself, as you would call it on inputs"
    got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise InputError("This is not a model.", expected="an nn.Module", got=got, where=where, next_step=next_step)


def what_to_call_with(example_inputs: Any) -> str:
    """The next step of somebody whose model does not run on these inputs."""
    leaves = pytree.tree_leaves(example_inputs)
    if any(isinstance(leaf, Tensor) for leaf in leaves):
        return "check the shapes of the inputs (--input-shape on the command line) and the model's forward"
    if leaves and all(isinstance(leaf, int) for leaf in leaves):
        return f"inputs of that shape, not the shape itself: torch.zeros({', '.join(map(str, leaves))})"
    return "pass a tensor with a batch of one, or a tuple or dict of tensors"


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


def memory_format_for(model: nn.Module, images: Any) -> torch.memory_format:
    """The memory format of images (n, c, h, w) in which ``model`` is fastest: channels-last, where it runs on that.

    A ``view`` of an activation may not; one image tells, in eval mode. All else is to be contiguous. Of the gradients
    that may not be taken in it, ``metrics/convolutions.py`` takes care.
    """
    if not isinstance(images, Tensor) or images.dim() != 4 or not len(images):
        return torch.contiguous_format
    try:
        with evaluating(model):
            model(images[:1].to(_device_of(model)).contiguous(memory_format=torch.channels_last))
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the caller's own pass will say
        return torch.contiguous_format
    return torch.channels_last


def laid_out(model: nn.Module, example_inputs: Any) -> Any:
    """The same inputs; a tensor of images in the memory format in which ``model`` is fastest."""
    return in_format(example_inputs, memory_format_for(model, example_inputs))


def in_format(inputs: Any, layout: torch.memory_format) -> Any:
    """The same inputs; a single tensor in that memory format."""
    return inputs.contiguous(memory_format=layout) if isinstance(inputs, Tensor) else inputs


def in_fast_format(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """The same batches, images in the memory format in which ``model`` is fastest."""
    layout = None
    for inputs, targets in batches:
        layout = layout or memory_format_for(model, inputs)
        yield in_format(inputs, layout), targets


def in_float32(output: Any) -> Any:
    """The same output, its floating-point tensors in float32: under mixed precision they are not."""
    return pytree.tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, output)


def device_of(nest: Any) -> torch.device:
    """The device of the first tensor in a nest."""
    found = (leaf.device for leaf in pytree.tree_leaves(nest) if isinstance(leaf, Tensor))
    return next(found, torch.device("cpu"))


def _device_of(model: nn.Module) -> torch.device:
    return next((t.device for t in itertools.chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _parts(output: Any) -> Iterable[Any]:
    if isinstance(output, Mapping):
        return output.values()
    if isinstance(output, tuple | list):
        return output
    if dataclasses.is_dataclass(output):
        return (getattr(output, field.name) for field in dataclasses.fields(output))
    return ()
