"""How steps are rewritten that choose, move or make positions: numbers that count neurons count survivors instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.program.rewriting import Rewriting, argument, first_output
from metaprune_cli.graph.trace.labels import Label
from metaprune_cli.graph.trace.record import Step, Value
from metaprune_cli.graph.trace.sizes import Size

aten = torch.ops.aten


def slices(work: Rewriting, step: Step) -> Step:
    """slice: the bounds count survivors."""
    source = step.args[0]
    dim = argument(step, 1, "dim", 0) % len(work.shape(source))
    stays = work.of(step, source)[dim]
    if stays is None:
        return step
    size = stays.numel()
    start, end, stride = slice(
        argument(step, 2, "start", None), argument(step, 3, "end", None), argument(step, 4, "step", 1)
    ).indices(size)
    if stride == 1:
        before, inside = int(stays[:start].sum()), int(stays[start:end].sum())
        return replace(step, args=(source, dim, before, before + inside), kwargs={})
    rank = stays.cumsum(0) - 1
    picked = rank[start:end:stride][stays[start:end:stride]]
    if step.outputs[0] in work.written:
        raise NumericsError("Every so many neurons are written to")
    return replace(step, operator=aten.index_select.default, args=(source, dim, work.constant(picked)), kwargs={})


def picks(work: Rewriting, step: Step) -> Step:
    """select: the index counts survivors."""
    source = step.args[0]
    dim, index = argument(step, 1, "dim", 0) % len(work.shape(source)), argument(step, 2, "index", 0)
    stays = work.of(step, source)[dim]
    if stays is None:
        return step
    index %= stays.numel()
    if not bool(stays[index]):
        raise NumericsError("What is selected would be gone")
    return replace(step, args=(source, dim, int(stays[:index].sum())), kwargs={})


def unbinds(work: Rewriting, step: Step) -> Step:
    """unbind: as many parts as survive."""
    source = step.args[0]
    stays = work.of(step, source)[argument(step, 1, "dim", 0) % len(work.shape(source))]
    if stays is None:
        return step
    return replace(step, outputs=tuple(n for n, left in zip(step.outputs, stays.tolist(), strict=True) if left))


def indexes(work: Rewriting, step: Step) -> Step:
    """index, index_put: what constants pick is counted among the survivors."""
    source, stays_of = step.args[0], work.of(step, step.args[0])
    indices = list(step.args[1])
    if any(index is not None and work.recording.values[index.number].dtype == torch.bool for index in indices):
        if any(stays is not None for stays in stays_of[: len(indices)]):
            raise NumericsError("Neurons are picked by a mask")
        return step
    alone = sum(index is not None for index in indices) == 1
    for dim, index in enumerate(indices):
        stays = stays_of[dim]
        if index is not None and stays is not None:
            indices[dim] = _renumbered(work, index, stays, whole=not alone)
    return replace(step, args=(source, indices, *step.args[2:]))


def index_selects(work: Rewriting, step: Step) -> Step:
    """index_select: likewise."""
    source, dim, index = step.args
    stays = work.of(step, source)[dim % len(work.shape(source))]
    return step if stays is None else replace(step, args=(source, dim, _renumbered(work, index, stays)))


def _renumbered(work: Rewriting, index: Any, stays: Tensor, *, whole: bool = False) -> Value:
    """A constant index of any shape, with what is gone left out of it (which ``whole`` forbids)."""
    known = work.recording.constants.get(index.number)
    if known is None or known.dtype not in (torch.int64, torch.int32):
        raise NumericsError("Neurons are picked by an index that is not constant")
    picked = known % stays.numel()
    left, index_now = stays[picked], (stays.cumsum(0) - 1)[picked]
    if whole and not bool(left.all()):
        raise NumericsError("Neurons that are gone are picked together with others")
    for d in range(left.dim()):
        along = left.any(dim=[o for o in range(left.dim()) if o != d]) if left.dim() > 1 else left
        left, index_now = (t.index_select(d, along.nonzero().flatten()) for t in (left, index_now))
    if not bool(left.all()):
        raise NumericsError("What is picked would have holes")
    return work.constant(index_now)


def gathers(work: Rewriting, step: Step) -> Step:
    """gather, scatter: along positions only; a constant index or source is cut to the neurons that are left."""
    target, dim, index, *rest = step.args
    stays = work.of(step, target)
    dim %= len(stays)
    out = list(first_output(work, step))
    if stays[dim] is not None or out[dim] is not None:
        raise NumericsError("Neurons are picked one by one")
    if step.operator.overloadpacket is not aten.gather:
        target = work.cut(step, target, out)
    cut = [work.cut(step, part, out) if isinstance(part, Value) else part for part in (index, *rest)]
    return replace(step, args=(target, dim, *cut))


def adds_at(work: Rewriting, step: Step) -> Step:
    """index_add, index_copy: the same neurons are left of what is written as of the places it goes to."""
    target, dim, index, source, *rest = step.args
    along, stays = work.of(step, target)[dim], list(first_output(work, step))
    stays[dim] = None
    if along is not None:
        known = work.recording.constants.get(index.number)
        written = work.of(step, source)[dim]
        if known is None or written is None or not torch.equal(along[known % along.numel()], written):
            raise NumericsError("Neurons are written to places that are not known")
        index = _renumbered(work, index, along)
    target, source = (work.cut(step, part, stays) for part in (target, source))
    return replace(step, args=(target, dim, index, source, *rest))


def rolls(work: Rewriting, step: Step) -> Step:
    """roll: by as many survivors as there are among those that come round."""
    source, shifts = step.args[:2]
    dims = argument(step, 2, "dims", ())
    shifts, dims = ([x] if isinstance(x, int) else list(x) for x in (shifts, dims))
    stays_of = list(work.of(step, source))
    if not dims:
        if any(stays is not None for stays in stays_of):
            raise NumericsError("Neurons are moved against each other")
        return step
    for i, dim in enumerate(dims):
        if (stays := stays_of[dim]) is not None:
            stays_of[dim] = stays.roll(shifts[i])
            shifts[i] = int(stays[stays.numel() - shifts[i] % stays.numel() :].sum())
    return replace(step, args=(source, shifts, dims), kwargs={})


def pads(work: Rewriting, step: Step) -> Step:
    """constant_pad_nd: what a negative padding cuts off is counted in survivors."""
    source, padding, *rest = step.args
    stays_of, padding = work.of(step, source), list(padding)
    for i in range(0, len(padding), 2):
        stays = stays_of[len(stays_of) - 1 - i // 2]
        if stays is not None:
            low, high = -min(padding[i], 0), -min(padding[i + 1], 0)
            padding[i] = padding[i] or 0 if low == 0 else -int(stays[:low].sum())
            padding[i + 1] = padding[i + 1] if high == 0 else -int(stays[stays.numel() - high :].sum())
    return replace(step, args=(source, padding, *rest))


def squeezes(work: Rewriting, step: Step) -> Step:
    """squeeze: the dimensions that had one position, not those that have one left."""
    source, shape = step.args[0], work.shape(step.args[0])
    given = argument(step, 1, "dim", tuple(range(len(shape))))
    dims = [d % len(shape) for d in ([given] if isinstance(given, int) else given)] if len(shape) else []
    return replace(step, operator=aten.squeeze.dims, args=(source, [d for d in dims if shape[d] == 1]), kwargs={})


def by_example(work: Rewriting, step: Step) -> Step:
    """Whatever moves neurons in an order of its own: right if it moves the numbers of the survivors to where they are.

    Raises:
        NumericsError: it does not, or nobody knows.
    """
    (source, *more), out = step.inputs(), step.outputs[0]
    before, after = work.of(step, source), first_output(work, step)
    if all(stays is None for stays in (*before, *after)):
        return step
    assert out is not None
    labels = [step.labels.get(number) for number in (source, out)]
    if more or not step.single or not all(isinstance(label, Tensor) for label in labels):
        raise NumericsError("Neurons are moved against each other")
    args = [Size.at_present(arg) for arg in step.args[1:]]
    try:
        moved = step.operator(_left(labels[0], before).contiguous(), *args, **step.kwargs)
    except (RuntimeError, IndexError) as error:
        raise NumericsError(str(error).splitlines()[0]) from None
    if not torch.equal(moved, _left(labels[1], after)):
        raise NumericsError("Neurons are moved against each other")
    return step


def _left(label: Label, stays: Any) -> Tensor:
    assert isinstance(label, Tensor)
    for d, mask in enumerate(stays):
        if mask is not None:
            label = label.index_select(d, mask.nonzero().flatten())
    return label


def creates(work: Rewriting, step: Step) -> Step:
    """zeros and their kin, where neurons are written into them: as many as there will be."""
    at = 1 if step.operator.overloadpacket.__name__.startswith("new_") else 0
    out = first_output(work, step)
    sizes = [resized(size, along) for size, along in zip(step.args[at], out, strict=True)]
    return replace(step, args=(*step.args[:at], sizes, *step.args[at + 1 :]))


def resized(size: Any, along: Tensor | None) -> Any:
    """A stated size, for what is left along its dimension.

    Raises:
        NumericsError: it is not the size of the dimension.
    """
    if along is None or (not isinstance(size, Size) and size == -1):
        return size
    total, left = along.numel(), int(along.sum())
    if isinstance(size, Size):
        scaled = size.scaled(left, total) if size.now == total else None
        if scaled is None:
            raise NumericsError("A size that depends on the inputs' cannot be scaled")
        return scaled
    if size != total:
        raise NumericsError(f"A size of {size} stands for {total} positions")
    return left
