"""What a model takes: example inputs to trace, count and compare it with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.models import vision
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.packages import PACKAGES
from metaprune_cli.models.registry import factory_of

LARGEST = 1 << 26
"""Values of one input: a quarter of a gigabyte."""
ATTRIBUTE = "example_inputs"
"""The attribute by which a model, its class or its factory says what it takes."""


def example_inputs(architecture: Architecture, model: nn.Module | None = None) -> ExampleInputs:
    """One input of a model, batch size 1.

    The first of these that there is: zeros of the architecture's input shape; the attribute ``example_inputs`` of the
    model, or of the factory that makes it (a tensor, a tuple of positional inputs, a dict of keyword inputs, or a
    callable without arguments that returns one); what the known kind of model takes.

    Args:
        architecture: what the model is.
        model: the model itself.

    Raises:
        InputError: nothing says what the model takes, or what says so is none of the above.
    """
    if architecture.input_shape is not None:
        return torch.zeros(1, *_of_fair_size(architecture))
    for owner in (model, factory_of(architecture)):
        stated = getattr(owner, ATTRIBUTE, None)
        if stated is not None:
            return _checked(stated, architecture)
    family, _, name = architecture.name.partition(":")
    usual = vision.usual_inputs(name) if family == "torchvision" else None
    if family in PACKAGES:
        usual = PACKAGES[family].inputs(name, architecture.args)
    if usual is None:
        raise InputError(
            "The shape of the model's input is not known.",
            expected=f"an input shape, or an attribute {ATTRIBUTE} of the model or of its factory",
            where=architecture.name,
            next_step="--input-shape 3,224,224, without the batch",
        )
    return usual


def _of_fair_size(architecture: Architecture) -> tuple[int, ...]:
    """The input's shape, whether it was stated or follows from the arguments."""
    shape = architecture.input_shape or ()
    if not all(isinstance(size, int) and size > 0 for size in shape) or math.prod(shape) > LARGEST:
        raise InputError(
            "No input can be of this shape.",
            expected=f"positive sizes, and at most {LARGEST} values",
            got=str(shape)[:200],
            where=architecture.name,
            next_step="--input-shape 3,224,224, without the batch",
        )
    return shape


def has_example(architecture: Architecture, model: nn.Module | None = None) -> bool:
    """Whether ``example_inputs`` has an answer."""
    try:
        example_inputs(architecture, model)
    except InputError:
        return False
    return True


def _checked(stated: Any, architecture: Architecture) -> ExampleInputs:
    """What the attribute holds, or what it returns."""
    is_function = isinstance(stated, Callable) and not isinstance(stated, Tensor)  # type: ignore[arg-type]
    found = stated() if is_function else stated
    if isinstance(found, Tensor | tuple | dict):
        return found
    raise InputError(
        f"The attribute {ATTRIBUTE} is not what a model can be called with.",
        expected="a tensor, a tuple of inputs, a dict of keyword inputs, or a callable that returns one of them",
        got=f"a {type(found).__name__}",
        where=architecture.name,
    )
