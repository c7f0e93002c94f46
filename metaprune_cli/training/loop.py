"""Training one model the usual way, and measuring its BatchNorm statistics anew."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from metaprune_cli.config import OptimSettings
from metaprune_cli.data.batch import Batch, Split, size_of
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.metrics.calling import call, in_fast_format
from metaprune_cli.tasks.base import Task
from metaprune_cli.tasks.measuring import value_of
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.learner import Learner
from metaprune_cli.training.mixing import mixed
from metaprune_cli.training.norms import measure_norms_
from metaprune_cli.training.progress import Progress, counted
from metaprune_cli.training.replicas import average_statistics_, check_parts, original, score_on
from metaprune_cli.training.schedules import learning_rate
from metaprune_cli.training.seeds import derive, seeded
from metaprune_cli.training.sparsity import sparse_learning
from metaprune_cli.training.state import Record, TrainState
from metaprune_cli.training.stopping import better_of, check_judged, is_over

RECALIBRATION_BATCHES = 100  # a mean over more batches than that does not move any more


@dataclass(frozen=True, eq=False)
class FitResult:
    """The trained model, in eval mode and on the device it was trained on.

    Attributes:
        model: the model.
        history: the figures of every epoch.
        epoch: after how many of them the model was like this; with patience, the best on the validation images.
    """

    model: nn.Module
    history: list[Record]
    epoch: int

    def __repr__(self) -> str:
        last = {name: value for name, value in (self.history[-1] if self.history else {}).items() if name != "epoch"}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        return f"{type(self.model).__name__} after {self.epoch} epochs" + (f": {figures}" if figures else "")


def fit(
    model: nn.Module,
    train: Split,
    settings: OptimSettings,
    *,
    task: Task,
    batch_size: int,
    augment: bool,
    seed: int,
    device: torch.device,
    progress: Progress,
    val: Split | None = None,
    graph: NeuronGraph | None = None,
    teacher: nn.Module | None = None,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState], None] | None = None,
    after_step: Callable[[nn.Module, float], None] | None = None,
    until: Callable[[nn.Module], bool] | None = None,
    further: Callable[[nn.Module], Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> FitResult:
    """Train a copy of ``model``; the arguments are not changed.

    Every epoch's random numbers follow from ``seed`` and its number, so on a CPU a run that goes on from ``state`` ends
    with the same bits as one that was never interrupted.

    Args:
        model: any model.
        train: the samples to train on.
        settings: optimiser, schedule and length; ``recalibrate``: measure BatchNorm statistics anew at the end.
        task: what it is trained for: loss, figures, distance from a teacher.
        batch_size: samples per step; a last smaller batch is left out.
        augment: whether images are augmented, as the split says.
        seed: of the order of the images, the augmentation, mixtures and dropout.
        device: where to train. Images are channels-last where the model runs on that.
        progress: is told about each epoch.
        val: is evaluated after each epoch; ``settings.patience`` needs it.
        graph: the model's, for sparse learning (``settings.sparsity``); without it there is none.
        teacher: a model to learn from beside the targets (``settings.distill_weight``).
        state: go on from here.
        on_epoch: is given the state after each epoch.
        after_step: is called with the model and the learning rate after every step; may change its weights in place
            (``training/zeros.py``).
        until: is asked before every epoch and after every step, with what is evaluated and kept, whether the training
            is to end there. The epoch then has its row like any other; whatever the answer depends on must be in the
            model's state dict, so that a run that is resumed answers alike.
        further: what of the model, after its pass over a batch, is minimised beside the loss of that.
        ranks: the processes that train this model together, all called with the same arguments; each takes its part
            of every batch (see ``training/replicas.py``).

    Raises:
        NumericsError: the loss is not finite; names the first parameter that is not.
        InputError: there are no images, none to judge epochs by, too few in a batch for so many ranks, BatchNorm cannot
            be synchronised, the device does not compute in the precision that is wanted, or the task knows no mixtures.
        CorruptFileError: ``state`` is that of another model.
    """
    check_parts(ranks, min(batch_size, len(train)))
    check_judged(settings, val)
    of_epoch = functools.partial(train_batches, train, batch_size, device=device, part=ranks.part)
    sample = functools.partial(of_epoch, seed=0, augment=False)
    learner = Learner.of(
        model,
        settings,
        task=task,
        device=device,
        ranks=ranks,
        teacher=teacher,
        batch=lambda: next(sample()),
        after_step=after_step,
    )
    measure_ = functools.partial(
        recalibrate_, split=train, batches=RECALIBRATION_BATCHES, batch_size=batch_size, augment=augment, ranks=ranks
    )
    history: list[Record] = []
    best = None
    if state is not None:
        learner.restore_(state)
        history, best = list(state.history), state.best
    progress.begin("train", settings.epochs - len(history))

    def goes_on() -> bool:
        ended = is_over(best, len(history), settings.patience) or (until is not None and until(learner.result))
        return len(history) < settings.epochs and not ended

    while goes_on():
        epoch = len(history)
        epoch_seed = derive(seed, "epoch", epoch)
        with seeded(ranks.own_seed(epoch_seed), device):
            pull = sparse_learning(learner.model, graph, settings)
            pull = pull if further is None else functools.partial(further, learner.model)
            steps = steps_in(train, batch_size)
            batches = counted(of_epoch(seed=epoch_seed, augment=augment), progress, f"epoch {epoch + 1}", steps)
            record = _train_epoch(learner, batches, epoch, steps, pull, until)
        if learner.average is not None:
            measure_(learner.result)
        if val is not None:
            score = score_on(learner.result, val, task, batch_size=batch_size, device=device, ranks=ranks)
            record |= {"val_loss": score.loss, f"val_{score.metric.key}": score.headline}
        history.append(record)
        best = better_of(best, learner.result, record, settings, task.metrics[0])
        if on_epoch is not None:
            on_epoch(learner.state(history, best))
        progress.step(**record)
    progress.end()
    if best is not None:
        learner.result.load_state_dict(dict(best.weights))
    if settings.recalibrate:
        measure_(learner.result)
    trained = original(learner.result, model, device).eval()
    return FitResult(trained, history, len(history) if best is None else best.epoch)


@torch.no_grad()
def recalibrate_(
    model: nn.Module,
    split: Split,
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
        augment: whether images are augmented, as the split says: best as in training. On CIFAR-10, models trained with
            crops and flips lost 3 to 4 points to statistics of plain images, and nothing to those of augmented ones.
        seed: of the choice of images.
        ranks: share every batch out among themselves; the statistics are the mean of theirs.
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = measure_norms_(model.eval())
    device = next(model.parameters()).device
    if norms:
        found = train_batches(split, batch_size, seed=seed, augment=augment, device=device, part=ranks.part)
        for inputs, _ in islice(found, batches):
            call(model, inputs)
    for norm in norms:
        norm.end()
    average_statistics_(model, ranks)
    for module, training in modes:
        module.training = training


def train_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    augment: bool,
    device: torch.device,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Shuffled batches, or parts of them (number, of how many).

    BatchNorm cannot take a batch of one image, so a last smaller one is left out.

    Raises:
        InputError: there are no images.
    """
    if not len(split):
        raise InputError("There are no images to train on.")
    drop_last = len(split) > batch_size
    return split.batches(batch_size, shuffle_seed=seed, augment=augment, device=device, drop_last=drop_last, part=part)


def steps_in(split: Split, batch_size: int) -> int:
    """How many ``train_batches`` there are in a split."""
    return max(len(split) // batch_size, 1)


def set_learning_rate_(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _train_epoch(
    learner: Learner,
    batches: Iterable[Batch],
    epoch: int,
    steps: int,
    penalty: Callable[[], Tensor] | None,
    until: Callable[[nn.Module], bool] | None,
) -> Record:
    learner.model.train()
    meter = learner.task.quick_meter()
    lr = total_loss = 0.0
    samples = 0
    for number, (inputs, targets) in enumerate(in_fast_format(learner.model, batches), epoch * steps):
        lr = learning_rate(learner.settings, number, steps)
        set_learning_rate_(learner.optimizer, lr)
        loss = learner.gradients_(mixed(Batch(inputs, targets), learner.settings), epoch, meter, penalty)
        learner.step_(number)
        total_loss += loss * size_of(targets)
        samples += size_of(targets)
        if until is not None and until(learner.result):
            break
    average_statistics_(learner.model, learner.ranks)
    total, seen, *sums = learner.ranks.sum([total_loss, samples, *meter.sums().tolist()])
    seen_by_all = learner.task.quick_meter()
    seen_by_all.merge(torch.tensor(sums, dtype=torch.float64))
    metric = learner.task.metrics[0]
    headline = value_of(metric, seen_by_all, learner.task)
    return {"epoch": epoch + 1, "lr": lr, "train_loss": total / seen, f"train_{metric.key}": headline}
