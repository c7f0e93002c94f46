"""Training one model to its file, with a checkpoint beside it while it lasts: what zoo and finetune share."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import DataSettings, OptimSettings
from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.tasks import Score, Task
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.loop import fit
from metaprune_cli.training.progress import About, Progress
from metaprune_cli.training.replicas import score_on
from metaprune_cli.training.zeros import zeros_kept
from metaprune_cli.workflows.device import threads_for
from metaprune_cli.workflows.loading import Opened, save
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.task import task_of


@dataclass(frozen=True)
class Trainer:
    """What is the same for every model of one call; small, so that it can be sent to another process.

    Attributes:
        settings: how each is trained.
        data: the images, and the batch size.
        device: where the training runs.
        resume: go on from a checkpoint that fits.
        ranks: the processes that train each model together; the first of them reads and writes its files.
        call: names the call; in each of its processes the images are read once.
    """

    settings: OptimSettings
    data: DataSettings
    device: torch.device
    resume: bool
    ranks: Ranks = ALONE
    call: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        _ = self.splits  # what is wrong with the images is said before any work starts

    @property
    def splits(self) -> Splits:
        """The images."""
        return _splits(self.data, self.call)

    @property
    def task(self) -> Task:
        """What the models are for."""
        return task_of(self.data)

    def metrics_if_done(self, made: Made, target: Path) -> Mapping[str, float] | None:
        """The figures of ``target`` if an earlier run that is resumed has finished it, else None.

        That run may have been killed before it had removed its checkpoint.
        """

        def done() -> Mapping[str, float] | None:
            metrics = made.metrics_if_done(target)
            if metrics is not None:
                made.checkpoint(target).discard()
            return metrics

        return self.ranks.from_first(done) if self.resume else None

    def headline(self, opened: Opened) -> float:
        """The task's metric of a model as it is, on the validation split."""
        with threads_for(count_macs(opened.model, opened.example()) * self.data.batch_size):
            score = self._score(opened.model.to(self.device))
        opened.model.cpu()
        return score.headline

    def _score(self, model: nn.Module) -> Score:
        size = self.data.batch_size
        return score_on(model, self.splits.val, self.task, batch_size=size, device=self.device, ranks=self.ranks)

    def train(
        self,
        opened: Opened,
        target: Path,
        made: Made,
        seed: int,
        step: Mapping[str, Any],
        progress: Progress,
        teacher: nn.Module | None = None,
    ) -> Mapping[str, float]:
        """Train a copy of the model, write it to ``target`` and return its figures on the validation split."""
        checkpoint = made.checkpoint(target)
        macs = count_macs(opened.model, opened.example()) * self.data.batch_size
        with threads_for(macs):
            result = fit(
                opened.model,
                self.splits.train,
                self.settings,
                task=self.task,
                batch_size=self.data.batch_size,
                augment=self.data.augment != "none",
                seed=seed,
                device=self.device,
                progress=About(progress, opened.path.name),
                val=self.splits.val,
                graph=opened.neuron_graph() if self.settings.sparsity else None,
                teacher=teacher,
                state=self.ranks.from_first(checkpoint.load) if self.resume else None,
                on_epoch=checkpoint.save if self.ranks.first else None,
                after_step=zeros_kept(opened.model, opened.zeros.entries, self.device) if opened.zeros else None,
                ranks=self.ranks,
            )
            score = self._score(result.model)
        metrics = {f"val_{score.metric.key}": score.headline, "val_loss": score.loss}
        if self.settings.patience:
            metrics |= {"epochs": len(result.history), "best_epoch": result.epoch}
            step = {**step, "best_epoch": result.epoch}
        if self.ranks.first:
            further: dict[str, Any] = {"history": result.history}
            if opened.importance is not None:
                further |= opened.importance.to_document()
            if opened.pruning is not None:
                further["pruning"] = opened.pruning
            opened = replace(opened, task=self.data.task, preprocessing=self.data.preprocessing)
            opened = replace(opened, restoration=self.task.remembered)
            save(result.model.cpu(), target, opened, made, step=step, metrics=metrics, **further)
            checkpoint.discard()
        return metrics


def shared_out(ranks: Ranks, *, ddp: bool, jobs: int) -> tuple[Ranks, Ranks]:
    """Between whom the models are shared out, and who trains each of them: one or the other is all ranks.

    Raises:
        InputError: several models at a time, each by all ranks.
    """
    if ddp and jobs != 1:
        raise InputError(
            "With --ddp all processes train one model, then the next.", expected="1", got=jobs, where="--jobs"
        )
    return (ALONE, ranks) if ddp else (ranks, ALONE)


@functools.lru_cache(maxsize=1)
def _splits(data: DataSettings, call: str) -> Splits:  # noqa: ARG001 - a call of its own reads them anew
    """Read once for each call, however its settings differ from model to model."""
    return task_of(data).splits(data)
