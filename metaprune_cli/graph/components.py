"""Connected components over index arrays, without a Python loop over nodes."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def components(count: int, pairs: Int[Tensor, "2 p"]) -> Int[Tensor, " n"]:
    """Label the connected components of an undirected graph.

    Minimum-label hooking with pointer jumping: O(log n) rounds of whole-array operations.

    Args:
        count: number of nodes.
        pairs: node ids of the edges' two ends.

    Returns:
        For every node the smallest node id of its component.
    """
    label = torch.arange(count)
    first, second = pairs
    while True:
        a, b = label[first], label[second]
        if torch.equal(a, b):
            return label
        low = torch.minimum(a, b)
        label = label.scatter_reduce(0, a, low, "amin").scatter_reduce(0, b, low, "amin")
        jumped = label[label]
        while not torch.equal(jumped, label):
            label, jumped = jumped, jumped[jumped]


def planes(
    count: int,
    both: Int[Tensor, "2 p"],
    columns: Int[Tensor, "2 q"],
    rows: Int[Tensor, "2 r"],
    heads: Int[Tensor, " h"],
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Label the columns and the rows of neurons that are coupled in two planes.

    Args:
        count: number of neurons.
        both: pairs that share their column and their row.
        columns: pairs that share their column.
        rows: pairs that share their row.
        heads: neurons whose column is their row.

    Returns:
        For every neuron the label of its column, and that of its row, or -1 where no pair of ``rows`` reaches its row;
        the labels of columns and rows are distinct but for those of ``heads``.
    """
    none = torch.full((count,), -1)
    if rows.size(1) == 0:
        pairs = torch.cat([both, columns], dim=1)
        return components(count, pairs), none
    pivots = torch.stack([heads, heads + count])
    label = components(2 * count, torch.cat([both, columns, both + count, rows + count, pivots], dim=1))
    column, row = label[:count], label[count:]
    exists = torch.zeros(2 * count, dtype=torch.bool)
    exists[row[rows.reshape(-1)]] = True
    return column, torch.where(exists[row], row, none)


def unique_pairs(pairs: Int[Tensor, "2 p"]) -> Int[Tensor, "2 q"]:
    """The distinct columns of ``pairs``, sorted by the first row, then the second."""
    if pairs.size(1) == 0:
        return pairs
    width = int(pairs[1].max()) + 1
    keys = pairs[0] * width + pairs[1]
    if bool((keys[1:] > keys[:-1]).all()):
        return pairs  # they are already: what was traced usually is
    keys = keys.unique()
    return torch.stack([keys // width, keys % width])
