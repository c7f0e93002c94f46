"""Training one model the usual way, and measuring its BatchNorm statistics anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.config import OptimSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.metrics.calling import in_fast_format, logits_of, memory_format_for
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.norms import measure_norms_
from metaprune_cli.training.numerics import not_finite
from metaprune_cli.training.progress import Progress
from metaprune_cli.training.replicas import accuracy_on, average_statistics_, check_parts, original, replica
from metaprune_cli.training.schedules import learning_rate
from metaprune_cli.training.seeds import derive, seeded
from metaprune_cli.training.sparsity import growth, penalty
from metaprune_cli.training.state import Record, TrainState

RECALIBRATION_BATCHES = 100  # a mean over more batches than that does not move any more


@dataclass(frozen=True, eq=False)
class FitResult:
    """The trained model, in eval mode and on the device it was trained on, and the figures of every epoch."""

    model: nn.Module
    history: list[Record]


def fit(
    model: nn.Module,
    train: ImageSplit,
    settings: OptimSettings,
    *,
    batch_size: int,
    augment: bool,
    seed: int,
    device: torch.device,
    progress: Progress,
    val: ImageSplit | None = None,
    graph: NeuronGraph | None = None,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState], None] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
    ranks: Ranks = ALONE,
) -> FitResult:
    """Train a copy of ``model``; the argument is not changed.

    Every epoch's random numbers follow from ``seed`` and its number, so on a CPU a run that goes on from ``state`` ends
    with the same bits as one that was never interrupted.

    Args:
        model: any classifier.
        train: the images to train on.
        settings: optimiser, schedule and length; ``recalibrate``: measure BatchNorm statistics anew at the end.
        batch_size: images per step; a last smaller batch is left out.
        augment: whether images are augmented, as the split says.
        seed: of the order of the images, the augmentation and dropout.
        device: where to train; on CUDA in bfloat16 (if ``settings.mixed_precision``).
            Images are channels-last where the model runs on that.
        progress: is told about each epoch.
        val: is evaluated after each epoch.
        graph: the model's, for sparse learning (``settings.sparsity``); without it there is none.
        state: go on from here.
        on_epoch: is given the state after each epoch.
        after_step: is called with the model after every step; may change its weights in place (``training/zeros.py``).
        ranks: the processes that train this model together, all called with the same arguments; each takes its part
            of every batch (see ``training/replicas.py``).

    Raises:
        NumericsError: the loss is not finite; names the first parameter that is not.
        InputError: there are no images, too few in a batch for so many ranks, or BatchNorm cannot be synchronised.
        CorruptFileError: ``state`` is that of another model.
    """
    check_parts(ranks, min(batch_size, len(train)))
    given, model = model, replica(model, settings, ranks, device)
    if device.type == "cuda":  # elsewhere it is enough that the images are
        image, _ = next(train_batches(train, 1, seed=0, augment=False, device=device))
        model = model.to(memory_format=memory_format_for(model, image))
    optimizer = make_optimizer(model, settings)
    history: list[Record] = []
    if state is not None:
        state.restore_(model, optimizer)
        history = list(state.history)
    done = state.epoch if state is not None else 0
    progress.begin("train", settings.epochs - done)
    for epoch in range(done, settings.epochs):
        epoch_seed = derive(seed, "epoch", epoch)
        batches = train_batches(train, batch_size, seed=epoch_seed, augment=augment, device=device, part=ranks.part)
        pull = _sparsity(model, graph, settings)
        with seeded(ranks.own_seed(epoch_seed), device):
            steps = steps_in(train, batch_size)
            record = _train_epoch(model, optimizer, batches, settings, epoch, steps, ranks, pull, after_step)
        if val is not None:
            accuracy = accuracy_on(model, val, batch_size=batch_size, device=device, ranks=ranks)
            record |= {"val_loss": accuracy.loss, "val_top1": accuracy.top1}
        history.append(record)
        if on_epoch is not None:
            on_epoch(TrainState.of(model, optimizer, history, epoch=epoch + 1))
        progress.step(**{name: value for name, value in record.items() if name != "epoch"})
    progress.end()
    if settings.recalibrate:
        recalibrate_(model, train, RECALIBRATION_BATCHES, batch_size=batch_size, ranks=ranks)
    return FitResult(original(model, given, device).eval(), history)


@torch.no_grad()
def recalibrate_(
    model: nn.Module,
    split: ImageSplit,
    batches: int,
    *,
    batch_size: int,
    augment: bool = False,
    seed: int = 0,
    ranks: Ranks = ALONE,
) -> None:
    """Measure the running statistics of every BatchNorm anew, in place: the plain mean over ``batches`` batches.

    Args:
        model: on the device to use; everything but BatchNorm runs in eval mode, all modes are put back.
        split: the images.
        batches: at most so many are read.
        batch_size: images per batch.
        augment: whether images are augmented, as the split says.
        seed: of the choice of images.
        ranks: share every batch out among themselves; the statistics are the mean of theirs.
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = measure_norms_(model.eval())
    device = next(model.parameters()).device
    if norms:
        found = train_batches(split, batch_size, seed=seed, augment=augment, device=device, part=ranks.part)
        for images, _ in islice(found, batches):
            model(images)
    for norm in norms:
        norm.end()
    average_statistics_(model, ranks)
    for module, training in modes:
        module.training = training


def train_batches(
    split: ImageSplit,
    batch_size: int,
    *,
    seed: int,
    augment: bool,
    device: torch.device,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches, or parts of them (number, of how many).

    BatchNorm cannot take a batch of one image, so a last smaller one is left out.

    Raises:
        InputError: there are no images.
    """
    if not len(split):
        raise InputError("There are no images to train on.")
    drop_last = len(split) > batch_size
    return split.batches(batch_size, shuffle_seed=seed, augment=augment, device=device, drop_last=drop_last, part=part)


def steps_in(split: ImageSplit, batch_size: int) -> int:
    """How many ``train_batches`` there are in a split."""
    return max(len(split) // batch_size, 1)


def make_optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser that ``settings`` name, for every parameter that is not frozen."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def set_learning_rate_(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    settings: OptimSettings,
    epoch: int,
    steps: int,
    ranks: Ranks,
    sparsity: Callable[[], Tensor] | None,
    after_step: Callable[[nn.Module], None] | None,
) -> Record:
    model.train()
    lr = total_loss = 0.0
    hits = samples = 0
    for step, (images, labels) in enumerate(in_fast_format(model, batches)):
        lr = learning_rate(settings, epoch * steps + step, steps)
        set_learning_rate_(optimizer, lr)
        with _precision(images.device, settings):
            logits = logits_of(model(images))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
        [images_of_all] = ranks.sum([len(labels)])
        optimizer.zero_grad()
        whole = loss if sparsity is None else loss + sparsity()
        (whole * (len(labels) / images_of_all)).backward()
        _check(model, loss.item(), epoch)
        ranks.sum_gradients_(model.parameters())
        optimizer.step()
        if after_step is not None:
            after_step(model)
        total_loss += loss.item() * len(labels)
        hits += int((logits.argmax(1) == labels).sum())
        samples += len(labels)
    average_statistics_(model, ranks)
    total, right, seen = ranks.sum([total_loss, hits, samples])
    return {"epoch": epoch + 1, "lr": lr, "train_loss": total / seen, "train_top1": 100 * right / seen}


def _sparsity(model: nn.Module, graph: NeuronGraph | None, settings: OptimSettings) -> Callable[[], Tensor] | None:
    """The penalty of sparse learning; what it pulls at is decided anew with every epoch."""
    if graph is None or not settings.sparsity:
        return None
    weights = dict(model.named_parameters())
    pull = growth(graph, model.state_dict(), settings.sparsity_alpha)
    return lambda: settings.sparsity * penalty(graph, weights, pull)


def _check(model: nn.Module, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        gradients = ((f"the gradient of {name}", parameter.grad) for name, parameter in model.named_parameters())
        suspects = [*model.state_dict().items(), *gradients]
        raise not_finite(
            f"The training loss is {loss} in epoch {epoch + 1}.", suspects, next_step="try a smaller learning rate"
        )


def _precision(device: torch.device, settings: OptimSettings) -> AbstractContextManager[object]:
    """bfloat16 where the device computes in it natively: it has the range of float32, so losses need no scaling."""
    wanted = settings.mixed_precision and device.type == "cuda"
    if wanted and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
