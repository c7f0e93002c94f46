"""What a metanetwork is trained for: losses on the weights that it wrote for one model.

An objective is a function from a step and its weights to a series of losses; their gradients with respect to the
weights add up. It yields them one at a time, so that no more than one batch is held in memory. A new objective is one
function and one row in ``OBJECTIVES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from metaprune_cli.config import MetaCriterion, MetaTrainSettings
from metaprune_cli.config import Objective as ObjectiveName
from metaprune_cli.config_loader import n_of_m
from metaprune_cli.data.batch import AnyBatch
from metaprune_cli.methods.metanet.learning.zoo import Member, Weights
from metaprune_cli.metrics.calling import device_of, in_float32
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.pruning import (
    at_fixed_cost,
    by_unit,
    differentiable_scores,
    gate_tensors,
    importance_at,
    mask_tensors,
    select,
    unit_scores,
)
from metaprune_cli.pruning.repair import repaired_weights
from metaprune_cli.pruning.sparsity import WeightLayer, Zeroing, choose, divided, find_layers, zero_tensors
from metaprune_cli.tasks.base import Task
from metaprune_cli.training.precision import in_precision
from metaprune_cli.training.sparsity import growth, penalty


@dataclass(frozen=True, eq=False)
class Step:
    """One zoo member for one step.

    Attributes:
        member: the model.
        task: what it is for.
        batches: inputs and targets, without end.
        settings: weights of the losses, speed-ups, length.
        generator: draws the speed-ups, on the CPU.
        importance: what the metanetwork's score head says of every neuron; None without such a head.
    """

    member: Member
    task: Task
    batches: Iterator[AnyBatch]
    settings: MetaTrainSettings
    generator: torch.Generator
    importance: Tensor | None = None

    def loss(self, weights: Weights, batch: AnyBatch) -> Tensor:
        """The task's loss, plus ``distill`` times the distance from the original model's outputs."""
        inputs, targets = batch
        with in_precision(self.settings.precision, device_of(inputs)):
            output = in_float32(self.member.output(weights, inputs))
        loss = self.task.loss(output, targets)
        if self.settings.distill:
            loss = loss + self.settings.distill * self.task.match(output, self.member.own_output(inputs))
        return loss


Objective = Callable[[Step, Weights], Iterator[Tensor]]


def pruned(step: Step, weights: Weights) -> Iterator[Tensor]:
    """The loss of the model as it is, and of what is left at a random speed-up, by the weights' own magnitudes.

        L = 1/B Σ_b  dense_weight · L_b(θ′) + L_b(mask(θ′))

    Which units are kept is learnt too, through straight-through gates of slope ``choice_slope`` (see
    :func:`metaprune_cli.pruning.gate_tensors`). With ``lookahead``, mask(θ′) is finetuned by so many steps of SGD
    first, and the gradient taken where that ends is used as it is (first order: Finn et al., arXiv 1703.03400,
    section 5.2).
    """
    settings = step.settings
    for number in range(settings.batches):
        smaller = finetuned(step, weights, random_speedup(step, number))
        batch = next(step.batches)
        if settings.dense_weight:
            yield settings.dense_weight / settings.batches * step.loss(weights, batch)
        yield step.loss(smaller, batch) / settings.batches


def sparsity(step: Step, weights: Weights) -> Iterator[Tensor]:
    """The loss of the model as it is, and group sparsity: for each unit the gradient reg · γ_c · w.

    See :mod:`metaprune_cli.training.sparsity`; the source is arXiv 2506.12041, section 4.
    """
    graph, settings = step.member.graph, step.settings
    for _ in range(settings.batches):
        yield step.loss(weights, next(step.batches))
    pull = growth(graph, {**graph.tensors, **weights}, settings.alpha)
    yield settings.reg * penalty(graph, weights, pull)


def zeroed(step: Step, weights: Weights) -> Iterator[Tensor]:
    """The loss of the model as it is, and with its smallest weights at zero: the counterpart of :func:`pruned`.

    Which weights those are, a random fraction of all or all but N of every M, the settings' objective says. What is
    gone learns too, straight through, with the slope ``choice_slope``.
    """
    settings = step.settings
    for number in range(settings.batches):
        sparse = with_zeros(step, weights, random_speedup(step, number))
        batch = next(step.batches)
        if settings.dense_weight:
            yield settings.dense_weight / settings.batches * step.loss(weights, batch)
        yield step.loss(sparse, batch) / settings.batches


def l1(step: Step, weights: Weights) -> Iterator[Tensor]:
    """The loss of the model as it is, and for each weight that can be zeroed the gradient reg · sign(w).

    The regulariser of arXiv 2506.12041 for unstructured pruning, whose cross-entropy is a sum over the batches, where
    this is their mean.
    """
    settings = step.settings
    for _ in range(settings.batches):
        yield step.loss(weights, next(step.batches)) / settings.batches
    names = [layer.name for layer in zeroable(step, weights)]
    yield settings.reg * torch.stack([weights[name].abs().sum() for name in names]).sum()


def shares(step: Step, weights: Weights) -> Iterator[Tensor]:  # noqa: ARG001 - an objective's arguments
    """Nothing but the examples (see ``shares``): no images pass, and the weights stay all but as they are."""
    return iter(())


OBJECTIVES: MappingProxyType[ObjectiveName, Objective] = MappingProxyType(
    {"pruned": pruned, "sparsity": sparsity, "shares": shares, "unstructured": zeroed, "n:m": zeroed, "l1": l1}
)


def smaller(step: Step, weights: Weights, speedup: float) -> dict[str, Tensor]:
    """What is left of the weights by the settings' objective: structured, or zeros."""
    of = finetuned if removes_units(step.settings) else with_zeros
    return of(step, weights, speedup)


def removes_units(settings: MetaTrainSettings) -> bool:
    """Whether what is trained for is structured pruning."""
    return settings.objective in ("pruned", "sparsity", "shares")


def with_zeros(step: Step, weights: Weights, speedup: float) -> dict[str, Tensor]:
    """The weights with the smallest at zero: N of every M, or 1/``speedup`` of all are left."""
    masks = choose(zeroable(step, weights), weights, zeroing(step.settings, 1 - 1 / speedup))
    return zero_tensors(weights, masks, step.settings.choice_slope)


def zeroable(step: Step, weights: Weights) -> list[WeightLayer]:
    """The layers that would be zeroed by default, as far as the metanetwork writes them.

    Raises:
        TargetError: there are none.
    """
    layers = [layer for layer in find_layers(step.member.graph) if layer.name in weights]
    return divided(layers, zeroing(step.settings, 0.5))[0]


def zeroing(settings: MetaTrainSettings, sparsity: float) -> Zeroing:
    """Which weights go by the settings' objective; ``sparsity`` is for single weights."""
    if settings.objective == "n:m":
        return Zeroing("n:m", pattern=n_of_m(settings.pattern, where="meta-train.pattern"))
    return Zeroing("unstructured", sparsity=sparsity)


def random_speedup(step: Step, number: int) -> float:
    """The speed-up of batch ``number``, drawn log-uniformly; the batches share the range out among themselves."""
    place = float(torch.rand((), generator=step.generator))
    return speedup_at(step.settings, (number + place) / step.settings.batches)


def random_criterion(step: Step) -> MetaCriterion:
    """One of those to prune by; where there is one alone, nothing is drawn."""
    several = (step.settings.criterion, *step.settings.criteria)
    if len(several) == 1:
        return several[0]
    return several[int(torch.randint(len(several), (), generator=step.generator))]


def speedup_at(settings: MetaTrainSettings, position: float) -> float:
    """From ``speedup_min`` at position 0 to ``speedup_max`` at 1, on a logarithmic scale."""
    low, high = math.log(settings.speedup_min), math.log(settings.speedup_max)
    return math.exp(low + (high - low) * position)


def finetuned(step: Step, weights: Weights, speedup: float) -> dict[str, Tensor]:
    """The weights masked at ``speedup``, repaired, and taken through ``lookahead`` steps of plain SGD.

    Steps and repair count as constants: what is differentiated is θ ↦ mask(θ + steps), and gone elements stay gone.
    """
    graph, settings = step.member.graph, step.settings
    scores = _scores(step, weights, speedup, random_criterion(step))
    kept = select(graph, scores, speedup, settings.scope, settings.max_ratio)
    moving = _leaves(_repaired(step, weights, kept) if settings.repair else weights)
    for _ in range(settings.lookahead):
        steps = _gradients(step.loss(mask_tensors(graph, moving, kept), next(step.batches)), moving)
        moving = _leaves({name: tensor - settings.lookahead_lr * steps[name] for name, tensor in moving.items()})
    shifted = {name: tensor + (moving[name] - tensor).detach() for name, tensor in weights.items()}
    if not (settings.choice_slope and scores.requires_grad):
        return mask_tensors(graph, shifted, kept)
    if settings.fixed_cost:
        scores = at_fixed_cost(graph, scores, kept)
    return gate_tensors(graph, shifted, kept, scores, settings.choice_slope)


def _repaired(step: Step, weights: Weights, kept: Tensor) -> dict[str, Tensor]:
    """The weights, what is kept of them changed as a repair by least squares on one batch would change it."""
    graph, (inputs, _) = step.member.graph, next(step.batches)
    fitted = repaired_weights(lambda tensors: step.member.output(tensors, inputs), graph, weights, kept)
    masked = mask_tensors(graph, weights, kept)
    return {name: tensor.detach() + (fitted[name] - masked[name].detach()) for name, tensor in weights.items()}


def _scores(step: Step, weights: Weights, speedup: float, criterion: MetaCriterion) -> Tensor:
    """Shape (units,); differentiable where the criterion is a function of the weights alone."""
    graph = step.member.graph
    tensors = {**graph.tensors, **weights}
    importance = None if step.importance is None else importance_at(by_unit(graph.units, step.importance), speedup)
    scores = differentiable_scores(graph, tensors, criterion, importance, step.settings.normaliser)
    if scores is not None:
        return scores
    gradients = None
    if criterion == "taylor":
        leaves = _leaves(weights)
        gradients = _gradients(step.loss(leaves, next(step.batches)), leaves)
    return unit_scores(
        graph,
        tensors,
        criterion,
        gradients=gradients,
        generator=step.generator,
        normaliser=step.settings.normaliser,
    )


def _leaves(weights: Weights) -> dict[str, Tensor]:
    return {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}


def _gradients(loss: Tensor, leaves: Weights) -> dict[str, Tensor]:
    """Zeros for leaves that the loss does not depend on (an auxiliary head's)."""
    guard_convolutions()
    taken = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, taken, strict=True))
