"""Training in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import torch
from torch import nn

from metaprune_cli.api.given import Data, check_takes, device_for, one_sample, samples_of, split_of
from metaprune_cli.config import DataSettings, OptimSettings
from metaprune_cli.config_loader import revised
from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.graph.encode import encode
from metaprune_cli.metrics.calling import check_module, not_in_inference_mode
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.tasks import Task
from metaprune_cli.training.loop import FitResult, fit, steps_in
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.training.zeros import zeros_kept
from metaprune_cli.workflows.device import threads_for
from metaprune_cli.workflows.pruning import Pruned


@not_in_inference_mode
def finetune(
    model: nn.Module | Pruned,
    data: Data,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    settings: OptimSettings | None = None,
    val: Data | None = None,
    teacher: nn.Module | None = None,
    task: Task | str | None = None,
    zeros: Collection[str] = (),
    batch_size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train a copy of ``model`` as ``metaprune finetune`` does: with its settings and data, to the bit.

    Args:
        model: the network, or what ``prune`` returned (of a search: its ``pruned``); not changed.
        data: of ``DataSettings`` and ``Splits`` the training samples, judged on the validation samples after every
            epoch; all of anything else. A DataLoader is read anew in every epoch, in its own order.
        epochs: how many; None: as in ``settings``.
        lr: the learning rate; None: as in ``settings``, and if they say none either, 0.1, or 0.001 with AdamW. For what
            ``prune`` returned, SGD's is 0.005 to 0.02 by the number of steps (docs/finetuning.md); of a module, nobody
            knows whether it was pruned.
        settings: everything else about the training: optimiser, schedule, mixtures, averages, patience.
        val: what every epoch is judged on, where ``data`` has no validation samples of its own.
        teacher: a model whose outputs are learnt from beside the targets (``settings.distill_weight``).
        task: what the model is for, or its name; None: what the data's settings say, or classification.
        zeros: the state-dict entries whose exact zeros stay (``sparsify(…).zeros``).
        batch_size: samples per step; None: as in the data's settings, or 64.
        seed: of the order of the samples, of augmentation and of dropout.
        device: where to train; None: where the model is.
        progress: is told about every epoch.

    Returns:
        ``.model``, in eval mode and where ``model`` is; ``.history``, the figures of every epoch; ``.epoch``, after how
        many of them the model was like this.

    Raises:
        InputError: this is no model, a setting or the data cannot be used, the model or the task cannot take it, or
            nothing would be done.
        NumericsError: the loss is not finite; names the first parameter that is not.
    """
    network = model.model if isinstance(model, Pruned) else model
    check_module(network)
    if teacher is not None:
        check_module(teacher, "teacher")
    used = revised(OptimSettings, settings, {"epochs": epochs, "lr": lr}, section="finetune", where="mp.finetune")
    if used.epochs == 0 and not used.recalibrate:
        raise InputError(
            "There is nothing to do: no epochs and no recalibration.",
            where="epochs",
            next_step="epochs=10, or OptimSettings(recalibrate=True) for BatchNorm statistics alone",
        )
    samples, place = samples_of(data, task, batch_size), device_for(device, network)
    train = samples.splits.train
    judged = samples.splits.val if isinstance(data, DataSettings | Splits) else None
    judged = judged if val is None else split_of(val)
    _check_known(network, zeros)
    if isinstance(model, Pruned):
        used = used.for_model(pruned=True, steps_per_epoch=steps_in(train, samples.batch_size))
    check_takes(network, train, samples.task)
    example = one_sample(train, device_for(None, network))
    with threads_for(count_macs(network, example) * samples.batch_size):
        found = fit(
            network,
            train,
            used,
            task=samples.task,
            batch_size=samples.batch_size,
            augment=samples.settings is not None and samples.settings.augment != "none",
            seed=seed,
            device=place,
            progress=progress or Silence(),
            val=judged,
            graph=encode(network, example) if used.sparsity else None,
            teacher=teacher,
            after_step=zeros_kept(network, zeros, place) if zeros else None,
        )
    return dataclasses.replace(found, model=found.model.to(device_for(None, network)))


def _check_known(model: nn.Module, zeros: Collection[str]) -> None:
    if unknown := sorted(set(zeros) - set(model.state_dict())):
        raise InputError(
            "The model has no such entries, whose zeros could stay.",
            expected="names of its state dict",
            got=", ".join(unknown[:5]),
            where="zeros",
        )
