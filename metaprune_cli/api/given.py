"""What people hand over as data: a data set's settings, splits, tensors, or batches; one adapter for all calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.config import DataSettings, PruningRule
from metaprune_cli.config_loader import revised
from metaprune_cli.data import Split, Splits, TensorSplit
from metaprune_cli.data.batch import Batch
from metaprune_cli.data.stream import StreamSplit, check_sizes
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.metrics.calling import device_of
from metaprune_cli.tasks import Task, find_task
from metaprune_cli.tasks.measuring import tallied
from metaprune_cli.workflows.device import pick_device
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.task import task_of

Data = DataSettings | Splits | Split | tuple[Any, Any] | Iterable[Any]
"""The settings of a data set; training and validation splits; one split; a tuple of inputs and targets, as tensors or
nests of them; or an iterable of batches of both, such as a DataLoader or a list."""
Rules = Sequence[PruningRule | Mapping[str, Any]]
"""What may happen to single layers; a mapping has a rule's fields, as in params.yaml."""
BATCH_SIZE = DataSettings.batch_size


def task_for(task: Task | str | None, data: object = None) -> Task:
    """What the model is for: what is said, else what the data's settings say, else classification.

    Raises:
        InputError: it is no task.
    """
    return task_of(data) if task is None and isinstance(data, DataSettings) else find_task(task)


def check_settings(data: object, batch_size: int | None = None) -> None:
    """Make sure that a batch has samples, and that a data set's settings can be used, as those of a file must be.

    Raises:
        InputError: they cannot be.
    """
    given = data if isinstance(data, DataSettings) else None
    revised(DataSettings, given, {"batch_size": batch_size}, section="data", where="data")


def samples_of(data: Data | None, task: Task | str | None, batch_size: int | None = None) -> Samples:
    """Training and validation samples; data without a validation split of its own is both.

    Raises:
        InputError: the data is none of what can be used, or one of its settings cannot be.
    """
    used = task_for(task, data)
    check_settings(data, batch_size)
    if data is None:
        return Samples(used)
    if isinstance(data, DataSettings):
        return Samples(used, lambda: used.splits(data), batch_size or data.batch_size, data)
    splits = data if isinstance(data, Splits) else None
    if splits is None:
        split = split_of(data)
        splits = Splits(split, split, None, "the data that was given")
    return Samples(used, lambda: splits, batch_size or BATCH_SIZE)


def held(data: Data) -> Data:
    """The same for whoever reads it more than once: of what can be read only once, all that it gives.

    Raises:
        InputError: it cannot be used, or one of its settings cannot be.
    """
    check_settings(data)
    return data if isinstance(data, DataSettings | Splits) else split_of(data)


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
    """Where the work is done: what is said, ``auto`` as on the command line, else where the model is.

    Raises:
        InputError: this machine has no such device.
    """
    if device is None:
        return device_of(model.state_dict())
    if device == "auto":
        return pick_device("auto")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch asserts that it was built for CUDA
        raise InputError(
            "This device cannot be used.",
            expected="auto, cpu, cuda, or another device of PyTorch that this machine has",
            got=f"{device} ({str(error).splitlines()[0][:200]})",
            where="device",
        ) from error


def documents(rules: Rules) -> list[Any]:
    """Rules as plain values, which is what settings are read from."""
    return [asdict(rule) if isinstance(rule, PruningRule) else rule for rule in rules]
