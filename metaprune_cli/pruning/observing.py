"""What a few hundred images show of every unit: what a metanetwork may read beside the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metaprune_cli.data.batch import AnyBatch
from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.metrics.calling import call
from metaprune_cli.pruning.calls import Call, Calls, seen_whole
from metaprune_cli.pruning.criteria import mean_by_unit
from metaprune_cli.pruning.evidence import measured_scores, sources_of
from metaprune_cli.tasks.base import Task

LOSSES = ("taylor", "obd-c")
"""What gradients say; see ``measured_scores``."""
EVIDENCE = ("activation", "deviation", "off", "unexplained", *LOSSES)
"""Mean magnitude and standard deviation of what a unit sends to those who read it, how often that is not above zero,
the share of its variance that the other inputs of those who read it leave unexplained, and what gradients say."""
ROWS = 8192
"""At most so many positions of a pass are looked at."""
WIDEST = 4096
"""Readers of more inputs are not asked what explains them: the matrix would be too large."""
RIDGE = 1e-6


def observe(
    model: nn.Module, graph: NeuronGraph, batches: Iterable[AnyBatch], task: Task
) -> dict[str, Float[Tensor, " units"]]:
    """What images show of every unit, by the names in ``EVIDENCE``; float32 on the CPU.

    With Σ the covariance of all that one reader of a unit j reads, ``unexplained`` is

        1 / (Σ⁻¹)ⱼⱼ / Σⱼⱼ,

    the share of the unit's variance that a linear regression on the others leaves: what a repair by least squares
    cannot make up for. Where a unit has several readers, each figure is the mean over them.

    Args:
        model: in eval mode; not changed.
        graph: its structure.
        batches: inputs and targets; all are read.
        task: what the model is for; its loss is what gradients are of.

    Returns:
        Zero where nothing is known: nobody reads a unit through a weight, or no gradient reaches it.

    Raises:
        NumericsError: something is not finite; names which figures.
    """
    batches = list(batches)
    found = _activations(model, graph, batches)
    found |= {name: measured_scores(model, graph, name, batches, task).float() for name in LOSSES}
    if broken := [name for name, values in found.items() if not values.isfinite().all()]:
        raise NumericsError(
            "What images show of the model's units is not finite.",
            got=", ".join(broken),
            next_step="look for NaN or infinity in the model's weights, or in the images after preprocessing",
        )
    return found


@dataclass(eq=False)
class _Read:
    """All that one parameter has read so far; sums over rows."""

    neurons: Int[Tensor, "groups inputs"]
    rows: int
    total: Float[Tensor, "groups inputs"]
    magnitude: Float[Tensor, "groups inputs"]
    off: Float[Tensor, "groups inputs"]
    squares: Float[Tensor, "groups inputs"]
    products: Float[Tensor, "groups inputs inputs"] | None

    @classmethod
    def of(cls, made: Call, neurons: Int[Tensor, "groups inputs"]) -> _Read:
        """One call."""
        x = _inputs(made).double()
        wide = x.size(2) > WIDEST
        return cls(
            neurons,
            x.size(1),
            x.sum(1),
            x.abs().sum(1),
            (x <= 0).double().sum(1),
            x.square().sum(1),
            None if wide else x.transpose(1, 2) @ x,
        )

    def add_(self, other: _Read) -> None:
        """Another call of the same parameter."""
        self.rows += other.rows
        for name in ("total", "magnitude", "off", "squares", "products"):
            mine, more = getattr(self, name), getattr(other, name)
            setattr(self, name, None if mine is None or more is None else mine + more)

    def figures(self) -> dict[str, Float[Tensor, "groups inputs"]]:
        """By name."""
        mean = self.total / self.rows
        variance = (self.squares / self.rows - mean.square()).clamp_min(0)
        return {
            "activation": self.magnitude / self.rows,
            "deviation": variance.sqrt(),
            "off": self.off / self.rows,
            "unexplained": self._unexplained(mean, variance),
        }

    def _unexplained(self, mean: Tensor, variance: Tensor) -> Tensor:
        if self.products is None:
            return torch.zeros_like(mean)
        if not variance.isfinite().all():
            return variance  # there is no inverse; whoever asked is told
        covariance = self.products / self.rows - mean.unsqueeze(2) * mean.unsqueeze(1)
        ridge = RIDGE * variance.mean(1, keepdim=True) + torch.finfo(torch.float32).tiny
        inverse = torch.linalg.inv(covariance + torch.diag_embed(ridge.expand_as(variance)))
        left = inverse.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(torch.float64).tiny).reciprocal()
        return torch.where(variance > 0, (left / variance).clamp(0, 1), 0.0)


def _inputs(made: Call) -> Float[Tensor, "groups rows inputs"]:
    """What the inputs of a call's parameter are at evenly spaced positions."""
    groups = 1 if made.geometry is None else made.geometry.groups
    x = made.x if made.geometry is None else made.x.movedim(1, -1)
    rows = x.reshape(-1, groups, x.size(-1) // groups)
    places = torch.linspace(0, len(rows) - 1, min(len(rows), ROWS), device=x.device).long()
    return rows[places].transpose(0, 1)


@torch.no_grad()
def _activations(model: nn.Module, graph: NeuronGraph, batches: Iterable[AnyBatch]) -> dict[str, Tensor]:
    sources, read = sources_of(graph), dict[tuple[str, int], _Read]()

    def seen(made: Call) -> bool:
        if made.param in sources:
            taps = 1 if made.geometry is None else made.weight[0, 0].numel()
            neurons = made.part_of(sources[made.param])[:, ::taps, 0].cpu()
            own, key = _Read.of(made, neurons), (made.param, int(made.weight.storage_offset()))
            read[key].add_(own) if key in read else read.update({key: own})
        return False

    for inputs, _ in batches:
        with seen_whole(model), Calls(model.named_parameters(), seen):
            call(model, inputs)
    figures = [(reader.neurons.flatten(), reader.figures()) for reader in read.values()]
    return {
        name: mean_by_unit(
            graph.units,
            [neurons[neurons >= 0] for neurons, _ in figures],
            [found[name].flatten().cpu()[neurons >= 0].float() for neurons, found in figures],
        )
        for name in EVIDENCE
        if name not in LOSSES
    }
