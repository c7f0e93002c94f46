"""Regions of parameters as regular blocks: every source once, what repeats as taps of one edge."""

from __future__ import annotations

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Ids

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
