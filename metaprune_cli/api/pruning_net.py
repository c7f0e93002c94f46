"""A PruningNet in one call."""

from __future__ import annotations

import torch
from torch import nn

from metaprune_cli.api.given import Data, check_takes, device_for, one_sample, samples_of, split_of
from metaprune_cli.config import DataSettings, PruneSettings, PruningNetSettings
from metaprune_cli.config_loader import revised
from metaprune_cli.data import Splits
from metaprune_cli.graph.encode import encode
from metaprune_cli.methods.pruning_net.network import PruningNet
from metaprune_cli.methods.pruning_net.training import train, untrained
from metaprune_cli.metrics.calling import takes_model
from metaprune_cli.tasks import Task
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.device import threads_for
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.width_spaces import widths_and_crops


@takes_model
def train_pruning_net(
    model: nn.Module,
    data: Data,
    *,
    epochs: int | None = None,
    settings: PruningNetSettings | None = None,
    pruning: PruneSettings | None = None,
    val: Data | None = None,
    task: Task | str | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> PruningNet:
    """Train one network that gives a model's weights for any widths, as ``metaprune pruning-net`` does.

    Every block of weights becomes W(e) = b + Σ_k relu(C e + d)_k A_k, with e the fractions that are left of its ends
    (MetaPruning, arXiv 1903.10258). With ``start="scratch"`` the model's weights are the random ones to begin with.

    Args:
        model: the network; not changed.
        data: as in :func:`metaprune.finetune`.
        epochs: how many; None: as in ``settings``.
        settings: of the generator, the widths that are drawn, the training.
        pruning: which widths there are (``max_ratio``, ``rules``, ``round_to``), and by which ``criterion`` units stay.
        val: what every epoch is judged on, where ``data`` has no validation samples of its own.
        task: what the model is for, or its name; None: what the data's settings say, or classification.
        batch_size: samples per step; None: as in the data's settings, or 64.
        device: where to train; None: where the model is.
        progress: is told about every epoch.

    Returns:
        The PruningNet, in eval mode and where ``model`` is. ``net.space`` are its widths, ``net.network(genes)`` is the
        model of certain widths, ``net.generate(kept)`` all weights, and ``net(inputs)`` what random networks return.

    Raises:
        InputError: a setting or the data cannot be used, or the model or the task cannot take it.
        TargetError: nothing of the model may go.
        NumericsError: the loss is not finite; names the first parameter that is not.
    """
    used = revised(
        PruningNetSettings, settings, {"epochs": epochs}, section="pruning-net", where="mp.train_pruning_net"
    )
    limits = revised(PruneSettings, pruning, {}, section="prune", where="mp.train_pruning_net")
    samples, place = samples_of(data, task, batch_size), device_for(device, model)
    split = samples.splits.train
    judged = samples.splits.val if isinstance(data, DataSettings | Splits) else None
    judged = judged if val is None else split_of(val)
    check_takes(model, split, samples.task)
    example = one_sample(split, device_for(None, model))
    run = PruningRun(model, example, encode(model, example), limits, Calibration(samples, limits, place))
    space, crops = widths_and_crops(run, ordered=used.start == "trained")
    net = untrained(model, run.graph, space, crops, used)
    with threads_for(run.graph.macs * samples.batch_size):
        found = train(
            net,
            split,
            used,
            task=samples.task,
            batch_size=samples.batch_size,
            augment=samples.settings is not None and samples.settings.augment != "none",
            device=place,
            progress=progress or Silence(),
            val=judged,
        )
    trained = found.model.to(device_for(None, model)).eval()
    assert isinstance(trained, PruningNet)
    return trained
