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


def unique_pairs(pairs: Int[Tensor, "2 p"]) -> Int[Tensor, "2 q"]:
    """The distinct columns of ``pairs``, sorted by the first row, then the second."""
    if pairs.size(1) == 0:
        return pairs
    width = int(pairs[1].max()) + 1
    keys = (pairs[0] * width + pairs[1]).unique()
    return torch.stack([keys // width, keys % width])
