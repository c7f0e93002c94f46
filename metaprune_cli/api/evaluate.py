"""Measuring in one call."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from metaprune_cli.api.given import Data, check_settings, check_takes, device_for, one_sample, split_of, task_for
from metaprune_cli.config import DataSettings, EvalSettings
from metaprune_cli.data import Split, Splits
from metaprune_cli.metrics.calling import takes_model
from metaprune_cli.metrics.macs import count_macs, count_params
from metaprune_cli.tasks import Task, measure
from metaprune_cli.tasks.measuring import beside_each_other


@takes_model
def evaluate(
    model: nn.Module,
    data: Data,
    *,
    task: Task | str | None = None,
    batch_size: int = EvalSettings.batch_size,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """The task's metrics, the loss, and what the model costs.

    Args:
        model: the network, measured in eval mode; not changed.
        data: of ``DataSettings`` the test sets, as ``metaprune eval`` reads them; of ``Splits`` the validation samples;
            all of anything else.
        task: what the model is for, or its name; None: what the data's settings say, or classification.
        batch_size: of the passes; batches of a DataLoader are cut or put together to it.
        device: where it is measured; None: where the model is.

    Returns:
        The task's metrics by key, those of further test sets with their names behind; ``loss``, the mean; ``samples``;
        ``macs`` of one sample; ``params``.

    Raises:
        InputError: the data cannot be used, or the model or the task cannot take it.
        NumericsError: the loss is not finite.
    """
    check_settings(data, batch_size)
    used, place = task_for(task, data), device_for(device, model)
    tests = _tests(data, used)
    first = next(iter(tests.values()))
    check_takes(model, first, used)
    model = model if device is None else copy.deepcopy(model).to(place)
    scores = {name: measure(model, test.batches(batch_size, device=place), place, used) for name, test in tests.items()}
    score = beside_each_other(scores)
    macs = count_macs(model, one_sample(first, place))
    return {**score.values, "loss": score.loss, "samples": score.samples, "macs": macs, "params": count_params(model)}


def _tests(data: Data, task: Task) -> Mapping[str, Split]:
    if isinstance(data, DataSettings):
        return task.test(data)
    return {"data": data.val if isinstance(data, Splits) else split_of(data)}
