"""Training a PruningNet: the usual loop, with other widths in every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import PruningNetSettings
from metaprune_cli.data.batch import Split
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.pruning_net.generator import form_for
from metaprune_cli.methods.pruning_net.network import PruningNet, PruningNetConfig
from metaprune_cli.methods.pruning_net.sampling import Sampler
from metaprune_cli.metrics.calling import device_of
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.crops import Crops
from metaprune_cli.pruning.width_space import WidthSpace
from metaprune_cli.tasks.base import Task
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.loop import FitResult, fit
from metaprune_cli.training.precision import in_precision
from metaprune_cli.training.progress import Progress
from metaprune_cli.training.seeds import derive, seeded
from metaprune_cli.training.state import TrainState


def untrained(
    model: nn.Module, graph: NeuronGraph, space: WidthSpace, crops: Crops, settings: PruningNetSettings
) -> PruningNet:
    """A PruningNet before its first step, its generator drawn from the settings' seed.

    Args:
        model: the network whose weights it starts with; drawn anew by the caller where it is to start from scratch.
        graph: the model's.
        space: the widths.
        crops: of the model.
        settings: of which generator and sampling are used.
    """
    form = form_for(graph, settings.hidden) if settings.generator == "auto" else settings.generator
    config = PruningNetConfig(form, settings.encoding, settings.hidden, settings.sandwich)
    sampler = Sampler(space, Cost.of(graph), settings.sampling, settings.speedup_max)
    net = PruningNet(model, graph, crops, sampler, config)
    with seeded(derive(settings.seed, "generator"), torch.device("cpu")):
        net.reset_(settings.start)
    return net


def train(
    net: PruningNet,
    samples: Split,
    settings: PruningNetSettings,
    *,
    task: Task,
    batch_size: int,
    augment: bool,
    device: torch.device,
    progress: Progress,
    val: Split | None = None,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState], None] | None = None,
    ranks: Ranks = ALONE,
) -> FitResult:
    """Train a copy of a PruningNet; arguments and errors are those of ``fit``. Every rank draws widths of its own.

    The figures on ``val`` are those of the whole network and of seven random ones in turn, a batch each.
    """

    def sandwich(trained: nn.Module) -> torch.Tensor:
        assert isinstance(trained, PruningNet)
        where: Any = device_of(trained.state_dict())
        with in_precision(settings.precision, where):
            return trained.rest_of_sandwich(task)

    return fit(
        net,
        samples,
        settings.training,
        task=task,
        batch_size=batch_size,
        augment=augment,
        seed=settings.seed,
        device=device,
        progress=progress,
        val=val,
        state=state,
        on_epoch=on_epoch,
        further=sandwich if settings.sandwich else None,
        ranks=ranks,
    )
