"""Pruning that keeps every shape: single weights, N of M, or blocks of them are set to zero.

Decide first, act second, as for structured pruning: layers → plan (a mask for each
entry, a row for each layer) → zeros.
"""

from metaprune_cli.pruning.sparsity.apply import zero_tensors, zeroed_copy
from metaprune_cli.pruning.sparsity.layers import WeightLayer, find_layers
from metaprune_cli.pruning.sparsity.plan import LayerZeros, ZeroPlan, choose, divided, make_zero_plan
from metaprune_cli.pruning.sparsity.request import Zeroing

__all__ = [
    "LayerZeros",
    "WeightLayer",
    "ZeroPlan",
    "Zeroing",
    "choose",
    "divided",
    "find_layers",
    "make_zero_plan",
    "zero_tensors",
    "zeroed_copy",
]
