"""What data says of units: raw scores from a few batches, for the criteria that the weights alone do not give."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metaprune_cli.data.batch import AnyBatch, Batch, chunks
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.metrics.calling import call
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.pruning.calls import Call, Calls, seen_whole
from metaprune_cli.pruning.criteria import OWNED, first_order, mean_by_unit, sum_by_unit
from metaprune_cli.tasks.base import Task
from metaprune_cli.tasks.registry import find_task

MICRO_BATCH = 8


def measured_scores(
    model: nn.Module, graph: NeuronGraph, criterion: str, batches: Iterable[AnyBatch], task: Task | None = None
) -> Float[Tensor, " units"]:
    """Raw scores, for ``unit_scores(..., measured=...)``.

    Args:
        model: in eval mode; not changed.
        graph: its structure.
        criterion: one of ``MEASURED``: ``taylor``, |Σ g · w| with the gradient g of the loss (Molchanov et al., arXiv
            1906.10771); ``obd-c``, the mean of (Σ g · w)² over small batches (C-OBD: Wang et al., arXiv 1905.05934);
            ``hessian``, ½ Σ h · w² with the Hessian's diagonal by Hutchinson's estimate (OBD: LeCun et al., 1990);
            ``activation``, the mean magnitude of what the unit sends to those who read it.
        batches: inputs and targets; the loss is the task's, summed over the batches.
        task: what the model is for; None: classification.

    Returns:
        On the CPU, shape (units,).
    """
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    with torch.enable_grad():  # a caller may have switched gradients off
        return MEASURED[criterion](probe, graph, batches, task or find_task(None)).detach().cpu()


def loss_gradients(model: nn.Module, batches: Iterable[AnyBatch], task: Task) -> dict[str, Tensor]:
    """Gradient of the loss, summed over the batches; by entry, on the model's device."""
    guard_convolutions()
    model.zero_grad()
    for inputs, targets in batches:
        task.loss(call(model, inputs), targets).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _taylor(model: nn.Module, graph: NeuronGraph, batches: Iterable[AnyBatch], task: Task) -> Tensor:
    return first_order(graph, model.state_dict(), loss_gradients(model, batches, task)).abs()


def _obd_c(model: nn.Module, graph: NeuronGraph, batches: Iterable[AnyBatch], task: Task) -> Tensor:
    total, count = torch.zeros(graph.units.num_units), 0
    for inputs, targets in batches:
        for part in chunks(Batch(inputs, targets), MICRO_BATCH):
            total += first_order(graph, model.state_dict(), loss_gradients(model, [part], task)).cpu().square()
            count += 1
    return total / max(count, 1)


def _hessian(model: nn.Module, graph: NeuronGraph, batches: Iterable[AnyBatch], task: Task) -> Tensor:
    named = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    diagonal = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    for inputs, targets in batches:  # fused attention has no second derivative
        signs = [torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1 for p in named.values()]
        leaves = list(named.values())
        with sdpa_kernel(SDPBackend.MATH):
            loss = task.loss(call(model, inputs), targets)
        first = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
        along = torch.stack([(g * s).sum() for g, s in zip(first, signs, strict=True)]).sum()
        second = torch.autograd.grad(along, leaves, materialize_grads=True)
        for total, s, h in zip(diagonal.values(), signs, second, strict=True):
            total += s * h
    products = {name: h * named[name].detach().square() / 2 for name, h in diagonal.items()}
    return sum_by_unit(graph, products, OWNED)[0]


def _activation(model: nn.Module, graph: NeuronGraph, batches: Iterable[AnyBatch], _: Task) -> Tensor:
    sources = sources_of(graph)
    neurons: list[Tensor] = []
    means: list[Tensor] = []

    def seen(made: Call) -> bool:
        if made.param in sources:
            ids = made.part_of(sources[made.param])[:, :, 0].flatten()
            means.append(_mean_magnitudes(made).flatten()[ids >= 0].cpu())
            neurons.append(ids[ids >= 0])
        return False

    for inputs, _ in batches:
        with seen_whole(model), Calls(model.named_parameters(), seen):
            call(model, inputs)
    return mean_by_unit(graph.units, neurons, means)


def _mean_magnitudes(made: Call) -> Float[Tensor, "groups k"]:
    """Over samples and positions, for every row of the weight's matrix."""
    if made.geometry is None:
        return made.x.reshape(-1, made.x.size(-1)).abs().mean(0)[None]
    by_channel = made.x.abs().mean([d for d in range(made.x.dim()) if d != 1])
    return by_channel.view(made.geometry.groups, -1).repeat_interleave(made.weight[0, 0].numel(), dim=1)


def sources_of(graph: NeuronGraph) -> dict[str, Tensor]:
    """For every element of every weight the neuron that it reads, of the weight's shape; -1 for none."""
    found: dict[str, Tensor] = {}
    for block in graph.blocks:
        shape = graph.tensors[block.param].shape
        ids = found.setdefault(block.param, torch.full(shape, -1))
        ids.as_strided(block.size, block.stride, block.offset).copy_(block.sources[:, None, :, None].expand(block.size))
    return found


MEASURED: Mapping[str, Callable[[nn.Module, NeuronGraph, Iterable[AnyBatch], Task], Tensor]] = MappingProxyType(
    {"taylor": _taylor, "obd-c": _obd_c, "hessian": _hessian, "activation": _activation}
)
