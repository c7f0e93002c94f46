"""One model trained by several processes: each has a copy of it and a part of every batch, and all take the same step.

The loss is the mean over the whole batch, however uneven the parts, so the gradients of the parts add up to that of the
batch. They travel in one message after the backward pass: parameters that an image does not reach, and modules of any
class and programs, need nothing special (which PyTorch's DistributedDataParallel would ask for). What depends on who
shares a batch is BatchNorm alone.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from metaprune_cli.config import OptimSettings
from metaprune_cli.data import Split
from metaprune_cli.errors import InputError
from metaprune_cli.tasks.base import Task
from metaprune_cli.tasks.measuring import Score, Tally, measure, tallied
from metaprune_cli.training.distributed import Ranks
from metaprune_cli.training.norms import synchronised


def check_parts(ranks: Ranks, images: int) -> None:
    """Make sure that a batch of so many images can be shared out.

    Raises:
        InputError: a process would get less than two of them, which BatchNorm cannot take.
    """
    if ranks.world > 1 and images < 2 * ranks.world:
        raise InputError(
            "A batch has too few images for so many processes.",
            expected=f"at least {2 * ranks.world}: two for each, as BatchNorm cannot take one",
            got=images,
            where="data.batch_size, or the number of training images",
            next_step="raise batch_size, which is that of all processes together, or start fewer",
        )


def replica(model: nn.Module, settings: OptimSettings, ranks: Ranks, device: torch.device) -> nn.Module:
    """A copy of ``model`` on ``device``, its BatchNorms synchronised where that is wanted and there is someone else.

    Raises:
        InputError: they cannot be.
    """
    model = copy.deepcopy(model).to(device)
    return synchronised(model, device) if settings.sync_batchnorm and ranks.world > 1 else model


def original(trained: nn.Module, model: nn.Module, device: torch.device) -> nn.Module:
    """What was trained, as modules of ``model``'s own classes; neither is changed."""
    if not any(isinstance(module, nn.SyncBatchNorm) for module in trained.modules()):
        return trained
    restored = copy.deepcopy(model).to(device)
    restored.load_state_dict(trained.state_dict())
    return restored


def average_statistics_(model: nn.Module, ranks: Ranks) -> None:
    """Every process has seen other images: the running statistics of each BatchNorm become their mean."""
    ranks.mean_([buffer for buffer in model.buffers() if buffer.is_floating_point()])


def score_on(
    model: nn.Module, split: Split, task: Task, *, batch_size: int, device: torch.device, ranks: Ranks
) -> Score:
    """The figures on all samples of a split, which the processes share out.

    Raises:
        InputError: there are no samples, or the model's outputs do not fit the targets.
        NumericsError: the loss is not finite.
    """
    if ranks.world == 1:
        return measure(model, split.batches(batch_size, device=device), device, task)
    mine = split.at(torch.arange(ranks.rank, len(split), ranks.world))
    whole = Tally(task)
    for sums in ranks.gather(tallied(model, mine.batches(batch_size, device=device), device, task).sums()):
        whole.merge(sums)
    return whole.score()
