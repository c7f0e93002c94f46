"""What Python itself fixes: remove a little on the meta device, run, and lock the families whose removal breaks it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from metaprune_cli.errors import MetapruneError
from metaprune_cli.graph.neuron_graph import Lock, NeuronGraph
from metaprune_cli.graph.resize import resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.trace import ExampleInputs, call, plain_operators
from metaprune_cli.graph.units import Family

_FEW = 12
"""Below this many families it is quicker to try each than to halve on: families that break come in numbers."""


def lock_what_breaks(
    graph: NeuronGraph, skeleton: nn.Module, inputs: Sequence[tuple[bool, ExampleInputs]]
) -> list[Lock]:
    """Find the families that cannot be removed because the program around the parameters does not follow.

    One unit of every prunable family is removed at once; only if that fails are the families halved until the
    culprits are found, so an ordinary model costs one pass on meta.

    Args:
        graph: the traced graph, its tensors on meta.
        skeleton: the model on meta; not changed.
        inputs: (training mode, example inputs on meta) pairs to try.

    Returns:
        One lock per family that breaks, the error as its reason.
    """
    shapes = [_output_shapes(skeleton, mode, example) for mode, example in inputs]

    def failure(families: Sequence[Family]) -> str | None:
        kept = torch.ones(graph.units.num_units, dtype=torch.bool)
        for family in families:
            free = family.units[graph.units.prunable[family.units]]
            kept[free[0]] = False
        try:
            small = copy.deepcopy(skeleton)
            resize_(small, {name: tuple(t.shape) for name, t in slice_tensors(graph, kept).items()})
            for (mode, example), expected in zip(inputs, shapes, strict=True):
                if _output_shapes(small, mode, example) != expected:
                    return "its removal changes the shape of the output"
        except MetapruneError as error:
            return f"its removal is not rectangular: {error.what}"
        except Exception as error:  # noqa: BLE001 - whatever the model raises is the reason
            return f"its removal breaks the program: {_first_line(error)}"
        return None

    locks: list[Lock] = []
    queue = [[f for f in graph.units.families if f.locked is None]]
    while queue:
        batch = queue.pop()
        reason = failure(batch) if batch else None
        if reason is None:
            continue
        if len(batch) > _FEW:
            queue += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        elif len(batch) > 1:
            queue += [[family] for family in batch]
        else:
            locks.append(Lock(_neurons_of(graph, batch[0]), reason))
    return locks


def _neurons_of(graph: NeuronGraph, family: Family) -> Tensor:
    return torch.isin(graph.units.unit_of, family.units).nonzero().flatten()


def _output_shapes(model: nn.Module, training: bool, example: ExampleInputs) -> list[Any]:
    model.train(training)
    with warnings.catch_warnings(), plain_operators():
        warnings.simplefilter("ignore")
        leaves = tree_leaves(call(model, example))
    return [tuple(leaf.shape) if isinstance(leaf, Tensor) else None for leaf in leaves]


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
