"""Rewrite a recorded program for what is left: every size it states follows from the survivors along each dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.record import Recording, Step, Value
from metaprune_cli.graph.survivors import SurvivorMap, Survivors

aten = torch.ops.aten


@dataclass(frozen=True)
class Size:
    """A size that grows with the batch: ``fixed + per_item * batch``; ``now`` is its value where it was recorded."""

    fixed: int
    per_item: int
    now: int


@dataclass
class Rewriting:
    """The new program as far as it is written.

    Attributes:
        recording: the program before.
        survivors: what stays of every tensor.
        steps: the new steps.
        constants: further constants (indices).
    """

    recording: Recording
    survivors: SurvivorMap
    steps: list[Step] = field(default_factory=list)
    constants: dict[int, Tensor] = field(default_factory=dict)
    _selected: dict[tuple[int, int, int], Value] = field(default_factory=dict)
    _next: Any = None

    def of(self, step: Step, value: Any) -> Survivors:
        """The survivors of a tensor at a step."""
        number = value.number if isinstance(value, Value) else value
        return self.survivors.of(step.labels.get(number), self.recording.values[number].dim())

    def shape(self, value: Any) -> torch.Size:
        """The shape of a tensor before the rewriting."""
        return self.recording.values[value.number if isinstance(value, Value) else value].shape

    def constant(self, tensor: Tensor) -> Value:
        """A new constant."""
        number = self.fresh()
        self.constants[number] = tensor
        return Value(number)

    def fresh(self) -> int:
        """The number of a new value."""
        return next(self._next)  # type: ignore[no-any-return]

    def select(self, value: Value, dim: int, stays: Tensor) -> Value:
        """Insert a selection of positions along one dimension."""
        picked = Value(self.fresh())
        index = self.constant(stays.nonzero().flatten())
        self.steps.append(
            Step(aten.index_select.default, (value, dim, index), {}, (picked.number,), single=True, labels={})
        )
        return picked


Rule = Callable[[Rewriting, Step], Step]


def rewrite(recording: Recording, graph: NeuronGraph, kept: Tensor) -> Recording:
    """The program of the smaller network.

    Args:
        recording: the program, traced with ids.
        graph: the structure whose neurons the ids are.
        kept: which units stay, bool, shape (units,).

    Returns:
        The same operators over smaller tensors; where a constant meets fewer neurons than before, the positions that
        are left are selected from it.

    Raises:
        NumericsError: an operator's arguments cannot be brought in line; it is named.
    """
    work = Rewriting(recording, SurvivorMap(graph, kept), _next=count(len(recording.values)))
    for step in recording.steps:
        try:
            rule = _RULES.get(step.operator.overloadpacket)
            if rule is None and torch.Tag.pointwise in step.operator.tags:
                rule = _aligned
            work.steps.append(step if rule is None else rule(work, step))
        except NumericsError as error:
            raise NumericsError(f"{error.what}, at {step.operator}", got=error.details["got"]) from None
    return replace(recording, steps=tuple(work.steps), constants={**recording.constants, **work.constants})


def _sizes(work: Rewriting, step: Step) -> Step:
    """view, expand: the sizes are those of the output."""
    out = work.of(step, step.outputs[0])
    given = list(step.args[1])
    lead = len(out) - len(given)
    sizes = [_resized(size, out[lead + d]) for d, size in enumerate(given)]
    return replace(step, args=(step.args[0], sizes, *step.args[2:]))


def _resized(size: Any, along: Tensor | None) -> Any:
    if along is None or size == -1:
        return size
    total, left = along.numel(), int(along.sum())
    if isinstance(size, Size):
        if size.now != total or (size.fixed * left) % total or (size.per_item * left) % total:
            raise NumericsError("A size that depends on the batch cannot be scaled")
        return Size(size.fixed * left // total, size.per_item * left // total, left)
    if size != total:
        raise NumericsError(f"A size of {size} stands for {total} positions")
    return left


def _splits(work: Rewriting, step: Step) -> Step:
    """Uneven survivors need every part's own size."""
    dim = _argument(step, 2, "dim", 0) % len(work.shape(step.args[0]))
    parts = [work.of(step, n)[dim] for n in step.outputs]
    if all(part is None for part in parts):
        return step
    sizes = [
        int(work.shape(n)[dim]) if part is None else int(part.sum())
        for n, part in zip(step.outputs, parts, strict=True)
    ]
    return replace(step, operator=aten.split_with_sizes.default, args=(step.args[0], sizes, dim), kwargs={})


def _slices(work: Rewriting, step: Step) -> Step:
    """The bounds count survivors."""
    source = step.args[0]
    dim = _argument(step, 1, "dim", 0) % len(work.shape(source))
    stays = work.of(step, source)[dim]
    if stays is None:
        return step
    size = stays.numel()
    start, end, stride = slice(
        _argument(step, 2, "start", None), _argument(step, 3, "end", None), _argument(step, 4, "step", 1)
    ).indices(size)
    if stride == 1:
        before, inside = int(stays[:start].sum()), int(stays[start:end].sum())
        return replace(step, args=(source, dim, before, before + inside), kwargs={})
    rank = stays.cumsum(0) - 1
    picked = rank[start:end:stride][stays[start:end:stride]]
    return replace(step, operator=aten.index_select.default, args=(source, dim, work.constant(picked)), kwargs={})


def _picks(work: Rewriting, step: Step) -> Step:
    """select: the index counts survivors."""
    source = step.args[0]
    dim, index = _argument(step, 1, "dim", 0) % len(work.shape(source)), _argument(step, 2, "index", 0)
    stays = work.of(step, source)[dim]
    if stays is None:
        return step
    index %= stays.numel()
    if not bool(stays[index]):
        raise NumericsError("What is selected would be gone")
    return replace(step, args=(source, dim, int(stays[:index].sum())), kwargs={})


def _indexes(work: Rewriting, step: Step) -> Step:
    """index_select and one-dimensional indexing by constants: the indices count survivors."""
    source, stays_of = step.args[0], work.of(step, step.args[0])
    if all(stays is None for stays in stays_of):
        return step
    if step.operator.overloadpacket is aten.index_select:
        dim = step.args[1] % len(stays_of)
        return replace(step, args=(source, dim, _renumbered(work, step.args[2], stays_of[dim])))
    indices = list(step.args[1])
    for dim, index in enumerate(indices):
        if index is not None and stays_of[dim] is not None:
            indices[dim] = _renumbered(work, index, stays_of[dim])
    return replace(step, args=(source, indices, *step.args[2:]))


def _renumbered(work: Rewriting, index: Any, stays: Tensor | None) -> Any:
    if stays is None:
        return index
    known = work.recording.constants.get(index.number)
    if known is None or known.dim() != 1 or known.dtype != torch.int64:
        raise NumericsError("Neurons are picked by an index that is not a constant list")
    picked = known % stays.numel()
    return work.constant((stays.cumsum(0) - 1)[picked[stays[picked]]])


def _moves_whole(work: Rewriting, step: Step) -> Step:
    """roll, flip and the like: only along dimensions that stay whole."""
    source = step.args[0]
    given = _argument(step, 2 if step.operator.overloadpacket is aten.roll else 1, "dims", ())
    dims = [d % len(work.shape(source)) for d in given]
    for dim in dims:
        if work.of(step, source)[dim] is not None:
            raise NumericsError("Neurons are moved against each other")
    return step


def _strided(work: Rewriting, step: Step) -> Step:
    touched = [n for n in (*step.inputs(), *step.outputs) if n is not None]
    if any(stays is not None for n in touched for stays in work.of(step, n)):
        raise NumericsError("Strides are stated by numbers")
    return step


def _relaid(work: Rewriting, step: Step) -> Step:
    """as_strided_ where units are gone was to the tensor's own shape: its strides do not matter."""
    if all(stays is None for stays in _first_output(work, step)):
        return step
    return replace(step, operator=aten.alias.default, args=step.args[:1], kwargs={})


def _normalised_shape(work: Rewriting, step: Step) -> Step:
    out = work.of(step, step.outputs[0])
    shape = list(step.args[1])
    shape = [_resized(size, along) for size, along in zip(shape, out[len(out) - len(shape) :], strict=True)]
    return replace(step, args=(step.args[0], shape, *step.args[2:]))


def _group_norm(work: Rewriting, step: Step) -> Step:
    """native_group_norm(input, weight, bias, N, C, HxW, groups, eps): the channels; every group keeps as many."""
    along = work.of(step, step.outputs[0])[1]
    if along is None:
        return step
    left = _per_group(along, step.args[6])
    return replace(step, args=(*step.args[:4], int(along.sum()), step.args[5], int((left > 0).sum()), *step.args[7:]))


def _convolution(work: Rewriting, step: Step) -> Step:
    """convolution(…, groups): the groups that are left."""
    groups = step.args[8]
    along = work.of(step, step.args[0])[1]
    if groups == 1 or along is None:
        return step
    left = _per_group(along, groups)
    return replace(step, args=(*step.args[:8], int((left > 0).sum())))


def _per_group(along: Tensor, groups: int) -> Tensor:
    left = along.view(groups, -1).sum(1)
    if left[left > 0].unique().numel() > 1:
        raise NumericsError("Groups would keep different numbers of channels")
    return left


def _aligned(work: Rewriting, step: Step) -> Step:
    """Elementwise: what has more positions than the result has left (a constant) is cut to them."""
    out = _first_output(work, step)
    return replace(
        step,
        args=tuple(_cut_nest(work, step, arg, out) for arg in step.args),
        kwargs={name: _cut_nest(work, step, arg, out) for name, arg in step.kwargs.items()},
    )


def _cut_nest(work: Rewriting, step: Step, arg: Any, wanted: Survivors) -> Any:
    if isinstance(arg, Value):
        return _cut(work, step, arg, wanted)
    if isinstance(arg, list | tuple):
        return type(arg)(_cut_nest(work, step, part, wanted) for part in arg)
    return arg


def _cut(work: Rewriting, step: Step, value: Value, wanted: Sequence[Tensor | None]) -> Value:
    """Select from ``value`` along the dimensions (aligned at the right) where it still has all positions."""
    shape, own = work.shape(value), work.of(step, value)
    lead = len(wanted) - len(shape)
    written = value.number in step.written()
    for d, (size, has) in enumerate(zip(shape, own, strict=True)):
        stays = wanted[lead + d] if lead + d >= 0 else None
        if stays is None or has is not None or size != stays.numel():
            continue
        if written:
            raise NumericsError("It writes into a tensor that keeps all its positions")
        value = work.select(value, d, stays)
    return value


def _product(work: Rewriting, step: Step) -> Step:
    """bmm and its kin: batch dimensions and the contracted ones of both sides."""
    first = 1 if len(step.args) > 2 else 0
    left, right = step.args[first], step.args[first + 1]
    a, b = work.of(step, left), work.of(step, right)
    if len(a) < 2 or len(b) < 2:
        return step
    inner, out = a[-1] if a[-1] is not None else b[-2], _first_output(work, step)
    batch = [x if x is not None else y for x, y in zip(a[:-2], b[:-2], strict=True)]
    left = _cut(work, step, left, (*batch, a[-2], inner))
    right = _cut(work, step, right, (*batch, inner, b[-1]))
    bias = () if first == 0 else (_cut(work, step, step.args[0], out),)
    return replace(step, args=(*bias, left, right, *step.args[first + 2 :]))


def _attention(work: Rewriting, step: Step) -> Step:
    """scaled_dot_product_attention(query, key, value, mask, …): heads, and the mask's."""
    query, key, value, mask, *rest = step.args
    q, k, v, out = (work.of(step, t) for t in (query, key, value, step.outputs[0]))
    batch = out[:-2]
    inner = q[-1] if q[-1] is not None else k[-1]
    grouped = step.kwargs.get("enable_gqa", False)
    query = _cut(work, step, query, (*batch, None, inner))
    if not grouped:
        key = _cut(work, step, key, (*batch, None, inner))
        value = _cut(work, step, value, (*batch, None, v[-1]))
    if mask is not None:
        mask = _cut(work, step, mask, (*batch, None, None))
    return replace(step, args=(query, key, value, mask, *rest))


def _joined(work: Rewriting, step: Step) -> Step:
    """cat, stack: constants among the parts are cut along the other dimensions."""
    out = list(_first_output(work, step))
    dim = _argument(step, 1, "dim", 0) % len(out)
    if step.operator.overloadpacket is aten.stack:
        del out[dim]
    else:
        out[dim] = None
    return replace(step, args=([_cut(work, step, part, out) for part in step.args[0]], *step.args[1:]))


def _first_output(work: Rewriting, step: Step) -> Survivors:
    assert step.outputs[0] is not None
    return work.of(step, step.outputs[0])


def _argument(step: Step, position: int, name: str, default: Any) -> Any:
    return step.args[position] if len(step.args) > position else step.kwargs.get(name, default)


def _rows(rule: Rule, *names: str) -> dict[Any, Rule]:
    return {getattr(aten, name): rule for name in names if hasattr(aten, name)}


_RULES: dict[Any, Rule] = {
    **_rows(_sizes, "view", "_unsafe_view", "reshape", "expand", "_reshape_alias"),
    **_rows(_splits, "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"),
    **_rows(_slices, "slice"),
    **_rows(_picks, "select"),
    **_rows(_indexes, "index", "index_select"),
    **_rows(_moves_whole, "roll", "flip", "rot90"),
    **_rows(_strided, "as_strided"),
    **_rows(_relaid, "as_strided_"),
    **_rows(_normalised_shape, "native_layer_norm", "_fused_rms_norm"),
    **_rows(_group_norm, "native_group_norm"),
    **_rows(_convolution, "convolution"),
    **_rows(_product, "mm", "addmm", "bmm", "baddbmm"),
    **_rows(_attention, "scaled_dot_product_attention"),
    **_rows(_joined, "cat", "stack"),
    **_rows(_aligned, "where", "masked_fill", "masked_fill_", "copy_", "addcmul", "addcdiv", "lerp", "pow"),
}
