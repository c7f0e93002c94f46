"""How much each unit matters: one number per unit, from the weights it owns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metaprune_cli.config import OF_METHODS, WITH_DATA, Criterion, Normaliser, Reduction
from metaprune_cli.errors import InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock
from metaprune_cli.graph.units import Units
from metaprune_cli.pruning.catalogue import CRITERIA

SCALE = frozenset({"scale"})
OWNED = frozenset({"scale", "shift", "bias"})
"""Kinds of features whose removal changes the function; statistics only normalise."""
USUAL = 3.0
"""The speed-up at which a score head's first term is meant, and for which it speaks where none is named."""


def unit_scores(
    graph: NeuronGraph,
    tensors: Mapping[str, Tensor],
    criterion: Criterion,
    *,
    gradients: Mapping[str, Tensor] | None = None,
    measured: Float[Tensor, " units"] | None = None,
    importance: Float[Tensor, " units"] | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
    normaliser: Normaliser = "max",
    kept: Bool[Tensor, " units"] | None = None,
) -> Float[Tensor, " units"]:
    """Score every unit: the higher, the more it matters; within each family the highest is 1 (``metanet``: about 1).

    Args:
        graph: the structure.
        tensors: the state dict that is scored, by entry.
        criterion: ``group-l1`` and ``group-l2`` (see ``group_magnitude``); ``bn-scale``, the mean magnitude of a unit's
            norm scales (group-l1 where it has none); ``fpgm`` (see ``distances``); ``lamp``, group-l2 over the sum of
            what is no smaller in the family (arXiv 2010.07611); ``taylor``, |Σ gradient · weight| over what it owns,
            and ``obd-c``, ``hessian``, ``activation`` (see ``evidence``); ``metanet``, group-l2 times e to the
            importance; ``random``.
        gradients: of the loss, by entry, for ``taylor`` alone.
        measured: raw scores from data, for ``taylor`` (instead), ``obd-c``, ``hessian`` and ``activation``.
        importance: what a metanetwork's score head says (see ``by_unit``); needed by ``metanet`` alone.
        generator: draws the ``random`` scores.
        reduction: of a unit's slices to one magnitude.
        normaliser: what scores are divided by, family by family: its maximum, mean or sum; ``none`` leaves them, and
            ``rank`` takes the place in the family for them, from 1 / size to 1.
        kept: which units are still there, where ``tensors`` have zeros for the others; None: all.

    Returns:
        float32 or wider on the CPU, shape (units,).

    Raises:
        InputError: a criterion without what it needs: gradients, data, or the importance.
    """
    if criterion == "random":
        return torch.rand(graph.units.num_units, generator=generator)
    with torch.no_grad():
        if measured is not None:
            raw = measured
        elif criterion == "taylor":
            raw = _taylor(graph, tensors, gradients)
        elif criterion in WITH_DATA:
            raise _needs_data(criterion)
        else:
            raw = _magnitude(graph, tensors, criterion, reduction)
        raw = raw.cpu()
        scores = _lamp(raw, graph.units) if criterion == "lamp" else normalised(raw, graph.units, normaliser, kept)
        return _weighed(scores, importance, criterion) if criterion in OF_METHODS else scores


def differentiable_scores(
    graph: NeuronGraph,
    tensors: Mapping[str, Tensor],
    criterion: Criterion,
    importance: Float[Tensor, " units"] | None = None,
    normaliser: Normaliser = "max",
) -> Float[Tensor, " units"] | None:
    """The same scores, differentiable in the tensors and the importance, on the tensors' device.

    The families' maxima are differentiated too: to raise the best unit of a family lowers all the others.

    None for criteria that are not a function of the weights alone (``taylor``, ``random``).
    """
    if criterion in ("taylor", "random"):
        return None
    scores = normalised(_magnitude(graph, tensors, criterion), graph.units, normaliser)
    return _weighed(scores, importance, criterion) if criterion in OF_METHODS else scores


def importance_at(importance: Float[Tensor, "units ..."], speedup: float) -> Float[Tensor, " units"]:
    """What a score head says at this speed-up: of two terms the second is the slope over its logarithm.

    i(s) = i₀ + i₁ · log(s / USUAL)
    """
    return importance if importance.dim() == 1 else importance[:, 0] + importance[:, 1] * math.log(speedup / USUAL)


def by_unit(units: Units, by_neuron: Float[Tensor, "neurons ..."]) -> Float[Tensor, "units ..."]:
    """The mean over every unit's neurons; differentiable."""
    if by_neuron.dim() > 1:
        return torch.stack([by_unit(units, term) for term in by_neuron.unbind(1)], dim=1)
    total, count = _reduce([(torch.arange(len(by_neuron)), by_neuron)], units)
    return total / count.clamp_min(1)


def _weighed(scores: Tensor, importance: Tensor | None, criterion: Criterion) -> Tensor:
    if importance is None or importance.shape != scores.shape:
        raise InputError(
            f"The criterion {criterion} needs to know what a method says of every unit.",
            expected=f"the importance of {len(scores)} units",
            got="none" if importance is None else f"that of {len(importance)}",
            next_step=f"prune {CRITERIA[criterion].needs}, or choose group-l2",
        )
    return scores * importance.to(scores).exp()


def _needs_data(criterion: Criterion) -> InputError:
    return InputError(
        f"The criterion {criterion} needs data.",
        expected="a few batches of images and their classes",
        got="none",
        next_step="give --dataset and --data-root (in Python: batches), or choose group-l2",
    )


def _magnitude(
    graph: NeuronGraph, tensors: Mapping[str, Tensor], criterion: Criterion, reduction: Reduction = "mean"
) -> Float[Tensor, " units"]:
    if criterion == "bn-scale":
        return _norm_scale(graph, tensors)
    if criterion == "fpgm":
        return distances(graph, tensors)
    return group_magnitude(graph, tensors, p=1 if criterion == "group-l1" else 2, reduction=reduction)


def group_magnitude(
    graph: NeuronGraph, tensors: Mapping[str, Tensor], p: int, reduction: Reduction = "mean"
) -> Float[Tensor, " units"]:
    """Mean of Σ|w|ᵖ over the slices that a unit owns; differentiable, not normalised.

        S_u = mean over slices s of u: Σ_{w ∈ s} |w|ᵖ

    A slice is what one of its neurons has in one tensor: its incoming weights, its outgoing weights, or its norm scale
    (DepGraph, arXiv 2301.12900, section 3.3; p = 2 is the paper's choice).

    Args:
        graph: the structure.
        tensors: the state dict, by entry.
        p: the power.
        reduction: the mean over the slices, or their sum, or the largest.

    Returns:
        Shape (units,), on the tensors' device; zero for units that own nothing.
    """
    powers = {name: _wide(tensors[name]).abs().pow(p) for name in _weights(graph)}
    if reduction == "max":
        return _reduce([*_slices(graph, powers), *_features(graph, powers, SCALE)], graph.units, "amax")[0]
    total, count = sum_by_unit(graph, powers, SCALE)
    return total / count.clamp_min(1) if reduction == "mean" else total


def distances(graph: NeuronGraph, tensors: Mapping[str, Tensor]) -> Float[Tensor, " units"]:
    """How far a unit's incoming weights are from those of its family: the mean of ‖w_u − w_v‖ over all its units v.

    FPGM (arXiv 1811.00250): who is near the geometric median can be told by the others. Units without incoming weights
    of their own score zero.
    """
    units = graph.units
    place = torch.zeros_like(units.family_of)
    squares = []
    for family in units.families:
        place[family.units] = torch.arange(len(family.units))
        squares.append(torch.zeros(len(family.units), len(family.units)))
    for block in graph.blocks:
        rows = _wide(block.weights(tensors)).reshape(-1, block.size[2] * block.size[3]).cpu()
        owner = units.unit_of[block.destinations.flatten()]
        for number in units.family_of[owner].unique().tolist():
            for turn in _turns(owner, units.family_of[owner] == number):
                at = place[owner[turn]]
                squares[number][at[:, None], at] += torch.cdist(rows[turn], rows[turn]).square()
    scores = torch.zeros(units.num_units)
    for family, square in zip(units.families, squares, strict=True):
        scores[family.units] = square.sqrt().mean(1)
    return scores


def _turns(owner: Tensor, chosen: Tensor) -> Iterable[Tensor]:
    """The chosen rows, in turns in each of which a unit has one."""
    rows = chosen.nonzero().flatten()
    order = rows[owner[rows].argsort(stable=True)]
    counts = owner[order].unique_consecutive(return_counts=True)[1]
    turn = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return (order[turn == t] for t in range(int(counts.max()) if len(counts) else 0))


def first_order(
    graph: NeuronGraph, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> Float[Tensor, " units"]:
    """Σ gradient · weight over what a unit owns: the first-order change of the loss when it goes, but for its sign."""
    names = _weights(graph) | {feature.name for feature in graph.features if feature.kind in OWNED}
    products = {name: _wide(tensors[name]) * gradients[name] for name in names if name in gradients}
    return sum_by_unit(
        graph, {n: products[n] if n in products else torch.zeros_like(tensors[n]) for n in names}, OWNED
    )[0]


def _taylor(
    graph: NeuronGraph, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor] | None
) -> Float[Tensor, " units"]:
    names = _weights(graph) | {feature.name for feature in graph.features if feature.kind in OWNED}
    missing = sorted(names & graph.trainable - set(gradients or {}))
    if gradients is None or missing:
        raise InputError(
            "The criterion taylor needs the gradient of the loss for every weight.",
            expected=f"gradients of {len(names)} entries",
            got="none" if not gradients else f"none for {', '.join(missing[:10])} ({len(missing)} in all)",
            next_step="give data to take gradients on, or choose group-l2",
        )
    return first_order(graph, tensors, gradients).abs()


def _norm_scale(graph: NeuronGraph, tensors: Mapping[str, Tensor]) -> Float[Tensor, " units"]:
    names = {feature.name for feature in graph.features if feature.kind in SCALE}
    magnitudes = {name: _wide(tensors[name]).abs() for name in names}
    total, count = _reduce(_features(graph, magnitudes, SCALE), graph.units)
    return torch.where(count > 0, total / count.clamp_min(1), group_magnitude(graph, tensors, p=1).to(total))


def _weights(graph: NeuronGraph) -> set[str]:
    """Names of the entries that magnitudes are taken of."""
    return {block.param for block in graph.blocks} | {f.name for f in graph.features if f.kind in SCALE}


def _wide(tensor: Tensor) -> Tensor:
    """Half precision overflows in sums of squares."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


Rows = tuple[Tensor, Tensor]
"""Slices of one tensor: the neurons that own them, and the sum over each; both of shape (rows,)."""


def sum_by_unit(graph: NeuronGraph, tensors: Mapping[str, Tensor], kinds: frozenset[str]) -> tuple[Tensor, Tensor]:
    """Sum and number of the slices that every unit owns, both of shape (units,); features of these kinds among them."""
    return _reduce([*_slices(graph, tensors), *_features(graph, tensors, kinds)], graph.units)


def _slices(graph: NeuronGraph, tensors: Mapping[str, Tensor]) -> Iterable[Rows]:
    """Incoming and outgoing weights of every neuron; those of a depthwise channel are the same and count once."""
    for block in graph.blocks:
        values = block.weights(tensors).sum(3)
        yield block.destinations, values.sum(2)
        if not _is_depthwise(block, graph.units):
            yield block.sources, values.sum(1)


def _is_depthwise(block: EdgeBlock, units: Units) -> bool:
    one_to_one = block.size[1] == block.size[2] == 1
    return one_to_one and torch.equal(units.unit_of[block.destinations], units.unit_of[block.sources])


def _features(graph: NeuronGraph, tensors: Mapping[str, Tensor], kinds: frozenset[str]) -> Iterable[Rows]:
    for feature in graph.features:
        if feature.kind in kinds and feature.name in tensors:
            yield feature.neurons, tensors[feature.name].flatten()[feature.elements]


def mean_by_unit(units: Units, neurons: Sequence[Tensor], values: Sequence[Tensor]) -> Float[Tensor, " units"]:
    """The mean of what is known of every unit's neurons; zero where nothing is."""
    total, count = _reduce(zip(neurons, values, strict=True), units)
    return total / count.clamp_min(1)


def _reduce(rows: Iterable[Rows], units: Units, how: Literal["sum", "amax"] = "sum") -> tuple[Tensor, Tensor]:
    """Sum and number of the slices of every unit, both of shape (units,); a head owns all its neurons' slices."""
    owners, sums = [torch.empty(0, dtype=torch.int64)], []
    for neurons, values in rows:
        owners.append(neurons.flatten())
        sums.append(values.flatten())
    values = torch.cat(sums) if sums else torch.empty(0)
    neurons = torch.cat(owners)
    index, zeros = units.unit_of[neurons].to(values.device), values.new_zeros(units.num_units)
    if units.on_grid.numel():
        heads = units.row_of[neurons].to(values.device)
        also = (heads >= 0) & (heads != index)
        index, values = torch.cat([index, heads[also]]), torch.cat([values, values[also]])
    reduced = zeros.scatter_reduce(0, index, values, "amax") if how == "amax" else zeros.index_add(0, index, values)
    return reduced, zeros.index_add(0, index, torch.ones_like(values))


def normalised(
    raw: Float[Tensor, " units"],
    units: Units,
    by: Normaliser = "max",
    kept: Bool[Tensor, " units"] | None = None,
) -> Float[Tensor, " units"]:
    """Divide by the family's maximum, mean or sum; a family of nothing but zeros stays zero.

    Args:
        raw: the scores.
        units: the families.
        by: what they are divided by.
        kept: which units count in the mean; None: all.
    """
    if by == "none":
        return raw
    if by == "rank":
        smooth = normalised(raw, units)
        return _ranks(raw.detach(), units) + (smooth - smooth.detach())
    family_of = units.family_of.to(raw.device)
    zeros = raw.new_zeros(len(units.families))
    if by == "max":
        whole = zeros.scatter_reduce(0, family_of, raw, "amax")
    else:
        whole = zeros.index_add(0, family_of, raw)
        if by == "mean":
            counted = raw.new_ones(len(raw)) if kept is None else kept.to(raw)
            whole = whole / zeros.index_add(0, family_of, counted).clamp_min(1)
    return raw / torch.where(whole > 0, whole, 1.0)[family_of]


def _ranks(raw: Float[Tensor, " units"], units: Units) -> Float[Tensor, " units"]:
    """Place in the family, in ascending order from 1, over its size."""
    ranks = torch.zeros_like(raw)
    for family in units.families:
        places = torch.arange(1, len(family.units) + 1).to(raw)
        ranks[family.units[raw[family.units].argsort(stable=True).cpu()]] = places / len(family.units)
    return ranks


def _lamp(raw: Float[Tensor, " units"], units: Units) -> Float[Tensor, " units"]:
    """Divide by the sum over all of the family that are no smaller; the largest is 1."""
    scores = torch.zeros_like(raw)
    for family in units.families:
        values, order = raw[family.units].sort(descending=True, stable=True)
        sums = values.cumsum(0)
        scores[family.units[order]] = values / torch.where(sums > 0, sums, 1.0)
    return scores
