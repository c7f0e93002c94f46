"""Regions of parameters as regular blocks: every source once, what repeats as taps of one edge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Elements, Ids, affine

NOWHERE = -1
"""In place of an element that goes with nothing."""

Part = tuple[tuple[int, int, int, int], tuple[int, int, int, int], int, tuple[int, ...], Tensor]
"""Size and strides as (groups, out, in, taps), offset, kernel, and the sources of the columns."""


def run_length(sources: Ids) -> int:
    """How many columns in a row have the same source, if it is the same number everywhere; else 1."""
    lengths = sources.reshape(-1).unique_consecutive(return_counts=True)[1]
    length = int(lengths[0])
    return length if bool((lengths == length).all()) and length < sources.size(1) else 1


def stacked(index: Ids) -> int | None:
    """Rows of each of several matrices one below the other in a block (1, out, in, taps); None where it is one."""
    if index.is_meta or index.size(0) > 1 or index.size(1) < 4:
        return None
    steps = index[0, :, 0, 0].diff()
    breaks = (steps != steps[0]).nonzero().flatten()
    rows = int(breaks[0]) + 1 if breaks.numel() else index.size(1)
    return rows if 1 < rows < index.size(1) and index.size(1) % rows == 0 else None


def in_order(weight: Elements) -> tuple[Elements, Tensor, Tensor] | None:
    """A weight whose rows, columns or taps were shuffled (a turned or mirrored kernel), as the parameter has them.

    Args:
        weight: viewed as (groups, out, in, taps).

    Returns:
        It, and the order of its rows and of its columns; None where that lies on no grid either, or repeats elements.
    """
    index = weight.real()
    if index.numel() == 0:
        return None
    rows, columns = (index[0].amin(dims).argsort(stable=True) for dims in ((1, 2), (0, 2)))
    index = index[:, rows][:, :, columns]
    small = taps_of_pairs(index)
    if small is None or index.size(3) % small.size(3) or (weight.companions and index.shape != small.shape):
        return None

    def arranged(companion: Elements) -> Elements:
        return companion.view(lambda other: other.expand(weight.index.shape)[:, rows][:, :, columns])

    found = Elements(weight.entry, small, tuple(map(arranged, weight.companions)), weight.mixes, weight.work)
    once = small.unique().numel() == small.numel()
    return (found, rows, columns) if once and affine(found) is not None else None


def taps_of_pairs(index: Ids) -> Ids | None:
    """The elements of each pair of neurons, ascending and each once; None where pairs have differently many.

    Args:
        index: elements, (groups, out, in, taps), ``NOWHERE`` where a kernel was padded.
    """
    if index.numel() == 0:
        return None
    ordered = index.sort(-1).values
    new = ordered != NOWHERE
    new[..., 1:] &= ordered.diff(dim=-1) != 0
    counts = new.sum(-1)
    taps = int(counts.max())
    return ordered[new].view(*index.shape[:3], taps) if taps and bool((counts == taps).all()) else None


def side_by_side(weight: Elements) -> tuple[int, list[Elements]] | None:
    """The parameters that a weight was put together from, each by itself.

    Args:
        weight: viewed as (groups, out, in, taps), ``NOWHERE`` where another one's elements are.

    Returns:
        The axis along which they lie, 1 or 2, and they; None where they do not lie beside each other.
    """
    if weight.index.is_meta:  # whole
        return None
    present = [part.real().expand(weight.index.shape) != NOWHERE for part in weight.alone()]
    if not bool((torch.stack(present).sum(0) == 1).all()):
        return None
    for axis in (1, 2):
        lines = [own.movedim(axis, 0).flatten(1) for own in present]
        if all(bool((line.all(1) | ~line.any(1)).all()) for line in lines):
            owner = torch.stack([line[:, 0] for line in lines]).int().argmax(0)
            runs, lengths = owner.unique_consecutive(return_counts=True)
            cut = partial(torch.split, split_size_or_sections=lengths.tolist(), dim=axis)
            whole = [replace(part, mixes=weight.mixes, work=weight.work).apply(cut) for part in weight.alone()]
            return axis, [whole[n][at] for at, n in enumerate(runs.tolist())]
    return None


def meets_its_own(companion: Elements, weight: Elements) -> bool | None:
    """Whether a weight's elements meet only the pairs of neurons that they are the edges of, as what it is made of too.

    Args:
        companion: what the weight was computed from.
        weight: viewed as (groups, out, in, taps).

    Returns:
        None where something of the companion is no element of the weight.
    """
    if companion.entry != weight.entry:
        return None
    index, beside = weight.real(), companion.real().expand(weight.index.shape)
    pairs = torch.arange(index[..., 0].numel()).view(index.shape[:3])[..., None].expand(index.shape)
    owner = torch.full((int(torch.maximum(index.max(), beside.max())) + 1,), NOWHERE)
    owner[index] = pairs
    met = torch.where(beside == NOWHERE, pairs, owner[beside])
    return None if bool((met == NOWHERE).any()) else torch.equal(met, pairs)


def regular_parts(
    shape: tuple[int, ...], stride: tuple[int, ...], offset: int, kernel: tuple[int, ...], sources: Ids
) -> list[Part]:
    """Split a block so that each part has every source once: columns of one source become taps of one edge.

    A flattened feature map (channel-major or position-major) is one part; a concatenation of several is one part each.
    """
    groups, out, columns, taps = shape
    s_group, s_out, s_in, s_tap = stride
    if groups > 1 or taps > 1 or sources.unique().numel() == columns:
        size = (groups, out, columns, taps)
        return [(size, (s_group, s_out, s_in, s_tap), offset, kernel, sources)]
    row = sources[0]
    distinct = row.unique().numel()
    if columns % distinct == 0 and torch.equal(row, row[:distinct].repeat(columns // distinct)):
        count = columns // distinct
        size = (1, out, distinct, count)
        return [(size, (s_group, s_out, s_in, s_in * distinct), offset, (count,), row[None, :distinct])]
    runs, lengths = row.unique_consecutive(return_counts=True)
    _, segment_sizes = lengths.unique_consecutive(return_counts=True)
    parts: list[Part] = []
    run = column = 0
    for runs_here in segment_sizes.tolist():
        length = int(lengths[run])
        size = (1, out, runs_here, length)
        kernel_here = (length,) if length > 1 else ()
        strides = (s_group, s_out, s_in * length, s_in)
        parts.append((size, strides, offset + column * s_in, kernel_here, runs[None, run : run + runs_here]))
        run += runs_here
        column += runs_here * length
    return parts
