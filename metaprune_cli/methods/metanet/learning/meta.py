"""Meta-training: a zoo of models in, a metanetwork out that makes models easy to prune."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from metaprune_cli.config import MetaTrainSettings
from metaprune_cli.data import Batch, Split
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.metanet import MetaNetwork
from metaprune_cli.methods.metanet.learning.objectives import OBJECTIVES, Step
from metaprune_cli.methods.metanet.learning.selection import check_reachable, validate
from metaprune_cli.methods.metanet.learning.shares import imitation
from metaprune_cli.methods.metanet.learning.zoo import Member, Weights, ZooEntry
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.pruning import by_unit
from metaprune_cli.tasks.base import Task
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.loop import set_learning_rate_, train_batches
from metaprune_cli.training.numerics import not_finite
from metaprune_cli.training.precision import check_precision
from metaprune_cli.training.progress import Progress
from metaprune_cli.training.schedules import learning_rate
from metaprune_cli.training.seeds import derive
from metaprune_cli.training.state import Best, Record, TrainState, snapshot

__all__ = ["MetaResult", "ZooEntry", "meta_train"]

IMPORTANCE = "the importance of neurons"  # no entry of a state dict is called like this


@dataclass(frozen=True, eq=False)
class MetaResult:
    """What meta-training ends with.

    Attributes:
        metanet_state: the metanetwork's state dict at the best epoch.
        history: the figures of every epoch; epoch 0 is the metanetwork as it was given.
        best_epoch: the epoch with the lowest validation loss.
        state: of the run after its last epoch.
    """

    metanet_state: dict[str, Tensor]
    history: list[Record]
    best_epoch: int
    state: TrainState


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same from epoch to epoch."""

    members: tuple[Member, ...]
    held_out: tuple[Member, ...]
    train: Split
    val: Split
    settings: MetaTrainSettings
    task: Task
    device: torch.device
    augment: bool
    ranks: Ranks


def meta_train(
    metanet: MetaNetwork,
    graphs: Sequence[ZooEntry],
    validation: Sequence[ZooEntry],
    train: Split,
    val: Split,
    settings: MetaTrainSettings,
    *,
    task: Task,
    device: torch.device,
    progress: Progress,
    augment: bool = False,
    state: TrainState | None = None,
    on_epoch: Callable[[TrainState], None] | None = None,
    ranks: Ranks = ALONE,
) -> MetaResult:
    """Train a copy of ``metanet``; the argument is not changed.

    In every epoch each member of the zoo is seen once: its weights go through the metanetwork, the objective's gradient
    with respect to the rewritten weights is summed over the batches, and one vector–Jacobian product takes it back.
    ``settings.members_per_step`` members are one step, whose gradient is their mean; the ranks share them out, and
    every rank takes the same step. All random numbers follow from ``settings.seed``, the epoch and the member, so on a
    CPU a resumed run ends with the same bits, and several ranks end where one does but for the order of rounding.

    Args:
        metanet: the metanetwork to start from.
        graphs: the zoo.
        validation: models that choose the epoch; where there are none, those of the zoo do.
        train: the samples of the losses.
        val: the samples that choose the epoch.
        settings: objective, optimiser and length.
        task: what the models are for.
        device: where to train.
        progress: is told about each epoch.
        augment: whether training images are augmented, as the split says.
        state: go on from here.
        on_epoch: is given the state after each epoch.
        ranks: the processes that train together; all are called with the same arguments.

    Raises:
        NumericsError: a loss or gradient is not finite; names the parameter.
        TargetError: a model cannot reach ``speedup_max``.
        InputError: there are no models or no images, more ranks than members in a step, or the device does not compute
            in the precision that is wanted.
        CorruptFileError: ``state`` is that of another metanetwork.
    """
    if settings.criterion == "metanet" and not metanet.config.score_head:
        raise InputError(
            "This metanetwork has no score head, so it cannot learn which units to keep.",
            where="meta-train.criterion",
            next_step="MetaNetworkConfig(score_head=True), or another criterion",
        )
    run = _prepared(graphs, validation, train, val, settings, task, device, augment, ranks)
    metanet = copy.deepcopy(metanet).to(device)
    optimizer = torch.optim.AdamW(metanet.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    if state is None:
        record = {"epoch": 0, **_validate(metanet, run)}
        untrained = Best(0, record["val_loss"], snapshot(metanet))
        state = TrainState.of(metanet, optimizer, [record], epoch=0, best=untrained)
    if state.best is None:
        raise CorruptFileError(
            "The checkpoint does not say which epoch is the best.", next_step="start without --resume"
        )
    state.restore_(metanet, optimizer)
    progress.begin("meta-train", settings.epochs - state.epoch)
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        record = _train_epoch(metanet, optimizer, run, epoch)
        best = state.best
        if epoch % settings.validate_every == 0 or epoch == settings.epochs:
            record |= _validate(metanet, run)
            if best is None or record["val_loss"] < best.score:
                best = Best(epoch, record["val_loss"], snapshot(metanet))
        state = TrainState.of(metanet, optimizer, [*state.history, record], epoch=epoch, best=best)
        if on_epoch is not None:
            on_epoch(state)
        progress.step(**record)
    progress.end()
    assert state.best is not None
    return MetaResult(dict(state.best.weights), list(state.history), state.best.epoch, state)


def _prepared(
    graphs: Sequence[ZooEntry],
    validation: Sequence[ZooEntry],
    train: Split,
    val: Split,
    settings: MetaTrainSettings,
    task: Task,
    device: torch.device,
    augment: bool,
    ranks: Ranks,
) -> Run:
    if not graphs:
        raise InputError("There are no models to train the metanetwork on.", next_step="run metaprune zoo first")
    if settings.members_per_step < ranks.world:
        raise InputError(
            "There are more processes than members of the zoo in a step.",
            expected=f"members_per_step of {ranks.world} or more, best a multiple of it",
            got=settings.members_per_step,
            where="meta-train.members_per_step",
            next_step=f"--members-per-step {ranks.world}, with the learning rate that suits it; or fewer processes",
        )
    check_precision(settings.precision, device)
    inputs, _ = next(train_batches(train, 1, seed=0, augment=False, device=device))
    members = tuple(Member.of(entry, device, inputs) for entry in graphs)
    held_out = tuple(Member.of(entry, device, inputs) for entry in validation) or members
    for member in (*members, *held_out):
        check_reachable(member, settings)
    return Run(members, held_out, train, val, settings, task, device, augment, ranks)


def _validate(metanet: MetaNetwork, run: Run) -> Record:
    # the same batches and draws every time, so that epochs are comparable
    steps = [_step_of(member, run, "validation", number) for number, member in enumerate(run.held_out)]
    return validate(metanet, steps, run.val, run.device, run.ranks)


def _train_epoch(metanet: MetaNetwork, optimizer: torch.optim.Optimizer, run: Run, epoch: int) -> Record:
    """Every member once, in an order drawn for this epoch; the last step may have fewer than the others."""
    generator = torch.Generator().manual_seed(derive(run.settings.seed, "order", epoch))
    order = torch.randperm(len(run.members), generator=generator)
    steps = [numbers.tolist() for numbers in order.split(run.settings.members_per_step)]
    totals = torch.zeros(2, dtype=torch.float64)
    lr = 0.0
    for place, numbers in enumerate(steps):
        lr = learning_rate(run.settings, (epoch - 1) * len(steps) + place, len(steps))
        set_learning_rate_(optimizer, lr)
        mine = [_step_of(run.members[number], run, "train", epoch, number) for number in run.ranks.share(numbers)]
        totals += torch.tensor(_step(metanet, optimizer, mine, len(numbers), run), dtype=torch.float64)
    loss, gradient_norm = (totals / torch.tensor([len(order), len(steps)])).tolist()
    return {"epoch": epoch, "lr": lr, "train_loss": loss, "gradient_norm": gradient_norm}


def _step(
    metanet: MetaNetwork, optimizer: torch.optim.Optimizer, mine: Sequence[Step], members: int, run: Run
) -> tuple[float, float]:
    """One step of the metanetwork on ``members`` members, of which ``mine`` are this rank's.

    Returns:
        The sum of all members' losses, and the norm of their mean gradient before clipping.
    """
    optimizer.zero_grad()
    [total] = run.ranks.sum([sum(_add_gradient(metanet, step) for step in mine)])
    run.ranks.sum_gradients_(metanet.parameters())
    for parameter in metanet.parameters():
        if parameter.grad is not None:
            parameter.grad /= members
    norm = float(torch.nn.utils.clip_grad_norm_(metanet.parameters(), run.settings.clip))
    if not math.isfinite(norm):  # each member's gradient was finite
        what = f"The norm of the mean gradient of {members} models is {norm}."
        raise not_finite(what, metanet.named_parameters(), next_step="try a smaller learning rate or ratio")
    optimizer.step()
    return total, norm


def _add_gradient(metanet: MetaNetwork, step: Step) -> float:
    """Add the gradient of one member's loss to the metanetwork's; returns the loss."""
    member, settings = step.member, step.settings
    graph = _shown(member.graph, step) if metanet.config.evidence else member.graph
    made = metanet.rewrite(graph, _noisy(graph, step), backend=settings.backend)
    written = member.rewritten(made.tensors) | ({} if made.importance is None else {IMPORTANCE: made.importance})
    total, leaves = summed_gradients(written, lambda weights: _losses(step, weights))
    gradients = [parameter.grad for parameter in metanet.parameters() if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not (math.isfinite(total) and math.isfinite(norm)):
        what = f"The meta-training loss is {total}, its gradient's norm {norm}."
        raise not_finite(what, _suspects(metanet, member, leaves), next_step="try a smaller learning rate or ratio")
    return total


def _shown(graph: NeuronGraph, step: Step) -> NeuronGraph:
    """The graph, at times without what images show of it, so that the metanetwork can do without."""
    hidden = bool(torch.rand((), generator=step.generator) < step.settings.hide_evidence)
    return graph.with_evidence({}) if hidden else graph


def _noisy(graph: NeuronGraph, step: Step) -> dict[str, Tensor]:
    """The model's tensors, those that the metanetwork reads each times 1 + noise (see ``weight_noise``)."""
    tensors, strength = dict(graph.tensors), step.settings.weight_noise
    if strength:
        for name in dict.fromkeys([block.param for block in graph.blocks] + [entry.name for entry in graph.features]):
            drawn = torch.randn(tensors[name].shape, generator=step.generator).to(tensors[name])
            tensors[name] = tensors[name] * (1 + strength * drawn)
    return tensors


def _losses(step: Step, written: Weights) -> Iterable[Tensor]:
    """The objective's, of everything that the metanetwork wrote, and how far its scores are from the examples."""
    weights = {name: tensor for name, tensor in written.items() if name != IMPORTANCE}
    importance, examples, units = written.get(IMPORTANCE), step.member.examples, step.member.graph.units
    yield from OBJECTIVES[step.settings.objective](replace(step, importance=importance), weights)
    if importance is not None and examples:
        yield step.settings.imitate * imitation(units, by_unit(units, importance), examples)


def summed_gradients(
    written: Weights, losses: Callable[[Weights], Iterable[Tensor]]
) -> tuple[float, dict[str, Tensor]]:
    """Send the gradient of the sum of all losses back through what wrote the weights, once.

    Args:
        written: the weights, each the end of a graph of autograd's.
        losses: a series of losses of the weights that they are given.

    Returns:
        The sum of the losses; and the weights they were given, with their gradients.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in written.items()}
    guard_convolutions()
    total = 0.0
    for loss in losses(leaves):
        loss.backward()
        total += loss.item()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    torch.autograd.backward([written[name] for name in gradients], list(gradients.values()))
    return total, leaves


def _suspects(metanet: MetaNetwork, member: Member, leaves: Weights) -> Iterator[tuple[str, Tensor | None]]:
    """What may not be finite, in the order of the computation."""
    for name, leaf in leaves.items():
        yield f"{member.name}: {name}", leaf
    for name, leaf in leaves.items():
        yield f"{member.name}: the gradient of {name}", leaf.grad
    for name, parameter in metanet.named_parameters():
        yield f"metanetwork: the gradient of {name}", parameter.grad


def _step_of(member: Member, run: Run, *purpose: int | str) -> Step:
    """A member with batches and random numbers that follow from the purpose alone."""
    seed = derive(run.settings.seed, *purpose)
    generator = torch.Generator().manual_seed(derive(seed, "speedups"))
    return Step(member, run.task, _endless(run, seed), run.settings, generator)


def _endless(run: Run, seed: int) -> Iterator[Batch]:
    size = run.settings.batch_size
    for again in count():
        yield from train_batches(run.train, size, seed=derive(seed, again), augment=run.augment, device=run.device)
