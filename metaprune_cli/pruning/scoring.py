"""From the name of a criterion to scores: built-in ones, those that need data, and users' own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metaprune_cli.config import WITH_DATA, Criterion, Normaliser, Reduction
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.data.batch import AnyBatch
from metaprune_cli.errors import InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.models.importing import import_named
from metaprune_cli.pruning.criteria import OWNED, SCALE, normalised, sum_by_unit, unit_scores
from metaprune_cli.pruning.evidence import measured_scores
from metaprune_cli.tasks.base import Task


@dataclass(frozen=True, eq=False)
class UnitTable:
    """What a criterion of a user's is given: the units of a model, and what they own.

    Attributes:
        graph: the structure; ``graph.units.families`` are the layers' channels, ``graph.units.family_of`` says which of
            them every unit is in.
        tensors: the state dict, by entry.
        model: the model itself, in eval mode.
        batches: inputs and targets, where the user gave any data.
    """

    graph: NeuronGraph
    tensors: Mapping[str, Tensor]
    model: nn.Module
    batches: tuple[AnyBatch, ...] = ()

    def total(self, values: Mapping[str, Tensor], *, biases: bool = False) -> Float[Tensor, " units"]:
        """The sum of ``values`` (by entry, shaped as the state dict) over everything that a unit owns.

        That is the weights that enter and leave it and the scales of its norms, with ``biases`` also its biases.
        """
        return sum_by_unit(self.graph, values, OWNED if biases else SCALE)[0]


def score_units(
    model: nn.Module,
    graph: NeuronGraph,
    criterion: str,
    *,
    task: Task | None = None,
    batches: Iterable[AnyBatch] = (),
    gradients: Mapping[str, Tensor] | None = None,
    importance: Float[Tensor, " units"] | None = None,
    reduction: Reduction = "mean",
    normaliser: Normaliser = "max",
    seed: int = 0,
    kept: Bool[Tensor, " units"] | None = None,
) -> Float[Tensor, " units"]:
    """Scores of a model's units by any criterion; arguments as in ``unit_scores``.

    Args:
        model: in eval mode, on the device of the batches; not changed.
        graph: its structure.
        criterion: a built-in one, or ``package.module:function``, which is given a :class:`UnitTable` and returns one
            number for every unit.
        task: what the model is for, which says what the loss is; None: classification.
        batches: for the criteria that need data (``config.WITH_DATA``), and for users' own.
        gradients: of the loss, by entry: ``taylor`` needs no batches then.
        importance: what a metanetwork says of every unit.
        reduction: of a unit's slices.
        normaliser: of a family's scores.
        seed: of ``random``.
        kept: which units are still there, where the model has zeros for the others; None: all.

    Raises:
        InputError: there is no such criterion, it lacks what it needs, or a user's returned something else.
    """
    tensors = model.state_dict()
    if ":" in criterion:
        table = UnitTable(graph, tensors, model, tuple(batches))
        return normalised(_of_user(criterion, table), graph.units, normaliser, kept)
    if criterion not in get_args(Criterion):
        raise InputError(
            "Unknown criterion.",
            expected=f"{', '.join(get_args(Criterion))}, or package.module:function",
            got=f"{criterion!r}{did_you_mean(criterion, get_args(Criterion))}",
        )
    known, taken = cast("Criterion", criterion), tuple(batches)
    return unit_scores(
        graph,
        tensors,
        known,
        gradients=gradients,
        measured=measured_scores(model, graph, known, taken, task) if known in WITH_DATA and taken else None,
        importance=importance,
        generator=torch.Generator().manual_seed(seed),
        reduction=reduction,
        normaliser=normaliser,
        kept=kept,
    )


def left_of_scores(
    scores: Float[Tensor, " units"], graph: NeuronGraph, kept: Bool[Tensor, " units"], small: NeuronGraph
) -> Float[Tensor, " survivors"] | None:
    """The scores of those units of ``graph`` that are kept, as units of the smaller model's graph.

    None where the two cannot be matched family by family (a family fell apart, or two became one).
    """
    left = [(family.name, family.units[kept[family.units]]) for family in graph.units.families]
    here = [(family.name, family.units) for family in small.units.families]
    pairs = list(zip(*(sorted(families, key=itemgetter(0)) for families in (left, here)), strict=False))
    alike = all(old[0] == new[0] and len(old[1]) == len(new[1]) for old, new in pairs)  # several may share a name
    if len(left) != len(here) or not alike:
        return None
    found = scores.new_zeros(small.units.num_units)
    for (_, old), (_, new) in pairs:
        found[new] = scores[old]
    return found


def _of_user(name: str, table: UnitTable) -> Float[Tensor, " units"]:
    criterion = import_named(name, "criterion", where="--criterion")
    try:
        found = criterion(table)
    except Exception as error:
        raise InputError(
            "The criterion failed.",
            expected="a function of the units that returns one number for each",
            got=f"{type(error).__name__}: {error}",
            where=name,
            next_step="--debug shows where",
        ) from error
    units = table.graph.units.num_units
    if not isinstance(found, Tensor) or tuple(found.shape) != (units,):
        raise InputError(
            "The criterion did not return one number for every unit.",
            expected=f"a tensor of shape ({units},)",
            got=f"{tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__,
            where=name,
        )
    return found.detach().float().cpu()
