"""What people hand over as data: a data set's settings, splits, tensors, or batches; one adapter for all calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.config import DataSettings
from metaprune_cli.data import Split, Splits, TensorSplit
from metaprune_cli.data.batch import Batch
from metaprune_cli.data.stream import StreamSplit, check_sizes
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.metrics.calling import device_of
from metaprune_cli.tasks import Task, find_task
from metaprune_cli.tasks.measuring import tallied
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.task import task_of

Data = DataSettings | Splits | Split | tuple[Any, Any] | Iterable[Any]
"""The settings of a data set; training and validation splits; one split; a tuple of inputs and targets, as tensors or
nests of them; or an iterable of batches of both, such as a DataLoader or a list."""
BATCH_SIZE = DataSettings.batch_size


def task_for(task: Task | str | None, data: object = None) -> Task:
    """What the model is for: what is said, else what the data's settings say, else classification."""
    if task is None:
        return task_of(data) if isinstance(data, DataSettings) else find_task(None)
    return find_task(task) if isinstance(task, str) else task


def samples_of(data: Data | None, task: Task | str | None, batch_size: int | None = None) -> Samples:
    """Training and validation samples; data without a validation split of its own is both.

    Raises:
        InputError: the data is none of what can be used.
    """
    used = task_for(task, data)
    if data is None:
        return Samples(used)
    if isinstance(data, DataSettings):
        return Samples(used, lambda: used.splits(data), batch_size or data.batch_size, data)
    splits = data if isinstance(data, Splits) else None
    if splits is None:
        split = split_of(data)
        splits = Splits(split, split, None, "the data that was given")
    return Samples(used, lambda: splits, batch_size or BATCH_SIZE)


def split_of(data: object) -> Split:
    """A single split.

    Raises:
        InputError: the data is none.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, tuple) and len(data) == 2:
        check_sizes(*data, where="data")
        return TensorSplit(*data)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping | Tensor):
        return StreamSplit.of(data)
    raise InputError(
        "This cannot be used as data.",
        expected="DataSettings, Splits, (inputs, targets) as tensors, or an iterable of batches, such as a DataLoader",
        got=type(data).__name__,
        where="data",
        next_step="for inputs without targets there is repair_inputs"
        if isinstance(data, Tensor)
        else "a DataLoader of your own data set will do",
    )


def one_sample(split: Split, device: torch.device) -> Any:
    """The first input of a split, with a batch of one, on a device.

    Raises:
        InputError: there is none.
    """
    first = next(iter(split.batches(1, device=device)), None)
    if first is None:
        raise InputError("There is no data.", expected="at least one sample", where="data")
    return first.inputs


def check_takes(model: nn.Module, split: Split, task: Task) -> None:
    """Make sure, before any work is done, that the model takes the inputs and the task can measure its outputs.

    Raises:
        InputError: it does not, or cannot.
    """
    device = device_of(model.state_dict())
    first = next(iter(split.batches(2, device=device)), None)
    if first is None:
        raise InputError("There is no data.", expected="at least one sample", where="data")
    try:
        tallied(model, [Batch(*first)], device, task)
    except MetapruneError:
        raise
    except Exception as error:  # the model and the task are anyone's
        raise InputError(
            f"{type(model).__name__} and this data do not go together.",
            expected=f"inputs that the model takes, and outputs and targets for {task.name}",
            got=f"{type(error).__name__}: {error}"[:400],
            where="data",
            next_step="check shapes and types; for another kind of task, pass task=…",
        ) from error


def device_for(device: torch.device | str | None, model: nn.Module) -> torch.device:
    """Where the work is done: what is said, else where the model is."""
    return torch.device(device) if device is not None else device_of(model.state_dict())
