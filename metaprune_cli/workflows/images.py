"""Whether a model fits the data it is to work on."""

from __future__ import annotations

from typing import Any

import torch

from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.metrics.calling import call
from metaprune_cli.tasks import Classification, Task
from metaprune_cli.tasks.measuring import tallied
from metaprune_cli.workflows.loading import Opened


def check_fits(opened: Opened, splits: Splits, task: Task) -> None:
    """Make sure that a model takes the inputs and returns what the task asks for.

    Raises:
        InputError: it does not, naming what differs.
    """
    expected, shape, dataset = opened.architecture.input_shape, splits.item_shape, splits.name
    if expected is not None and shape is not None and tuple(expected) != shape:
        raise InputError(
            f"The model and the images of the data set {dataset} have different shapes.",
            expected=f"images of {_written(expected)}",
            got=_written(shape),
            where=opened.path,
            next_step=task.advice(tuple(expected), shape),
            about="data",
        )
    output = _output(opened, splits)
    try:
        task.check(output, splits)
    except InputError as error:
        raise _about(opened, error) from error
    if not isinstance(task, Classification) and len(splits.val):
        _check_measurable(opened, splits, task)


@torch.no_grad()
def _output(opened: Opened, splits: Splits) -> Any:
    """For one input: zeros, or of several kinds the first."""
    shape = splits.item_shape
    try:
        inputs = next(splits.val.batches(1)).inputs if shape is None else torch.zeros(1, *shape)
        return call(opened.model, inputs)
    except Exception as error:  # the model is anyone's: a ViT fails by an assertion
        raise InputError(
            f"The model cannot take images of the data set {splits.name}.",
            got=f"{error}" if shape is None else f"images of {_written(shape)}: {error}",
            where=opened.path,
            next_step="choose the data set the model was made for with --dataset, or say --image-size",
            about="data",
        ) from error


def _check_measurable(opened: Opened, splits: Splits, task: Task) -> None:
    """Make sure that a task of anybody's can measure the model, before hours are spent on it."""
    try:
        tallied(opened.model, [next(splits.val.batches(1))], "cpu", task)
    except InputError as error:
        raise _about(opened, error) from error
    except MetapruneError:
        raise
    except Exception as error:
        raise InputError(
            f"The task {task.name} cannot measure this model.",
            got=f"{type(error).__name__}: {error}",
            where=opened.path,
            next_step="check that the task is the one the model was made for; --debug shows the traceback",
            about="data",
        ) from error


def _about(opened: Opened, error: InputError) -> InputError:
    """The same error, of this model."""
    details = {name.replace(" ", "_"): text for name, text in error.details.items()}
    return InputError(error.what, **{**details, "where": opened.path, "about": "data"})  # type: ignore[arg-type]


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
