"""Copies for the check: with a model's own weights, with masked ones, with random ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import copied


def copy_in(dtype: torch.dtype, model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``model`` that holds ``tensors`` in another precision; nothing is copied as it was first.

    Args:
        dtype: of the copy's floating-point tensors.
        model: gives everything but the values of its state dict; not changed.
        tensors: its state dict, or one of the same shapes.

    Raises:
        NumericsError: a tensor has another shape than the model's.
    """
    named = {id(t): name for name, t in reversed(model.state_dict(keep_vars=True).items()) if isinstance(t, Tensor)}
    instead: dict[int, Any] = {}
    for old in itertools.chain(model.parameters(), model.buffers()):
        name = named.get(id(old), "")
        source = tensors.get(name, old).detach()
        if source.shape != old.shape:
            raise NumericsError(
                "The pruned model's tensors have other shapes than the plan leaves.",
                expected=tuple(source.shape),
                got=tuple(old.shape),
                where=name,
            )
        new = source.to(dtype if source.is_floating_point() else source.dtype, copy=True)
        instead[id(old)] = nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new
    return copied(model, instead)


def random_tensors(graph: NeuronGraph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with random values for everything that is learnt; no value is zero, no two are alike.

    Edges are normal with variance 1 / fan-in, scales and variances uniform in (½, 3/2), whatever else neurons own
    normal with standard deviation 0.2; what is kept verbatim and is no buffer, such as a single gate, as a scale.
    """
    generator = torch.Generator().manual_seed(0)
    spread = {block.param: 1 / math.sqrt(block.size[2] * block.size[3]) for block in graph.blocks}
    spread |= {f.name: 0.2 for f in graph.features if f.kind not in ("scale", "variance")}
    learnt = graph.trainable | {feature.name for feature in graph.features}

    def draw(name: str, tensor: Tensor) -> Tensor:
        if name not in learnt or not tensor.is_floating_point():
            return tensor
        if name in spread:
            return (torch.randn(tensor.shape, generator=generator) * spread[name]).to(tensor)
        return (torch.rand(tensor.shape, generator=generator) + 0.5).to(tensor)

    drawn = {name: draw(name, tensor) for name, tensor in tensors.items()}
    return drawn | {alias: drawn[name] for alias, name in graph.aliases.items()}


def silent_entries(graph: NeuronGraph, tensors: Mapping[str, Tensor]) -> list[str]:
    """Weights and scales whose values are all alike, as before any training, or zero.

    Behind a zero nothing is visible in the output, and where all are alike, neurons may be swapped unseen.
    """
    added = {f.name for f in graph.features if f.kind != "scale"}

    def silent(tensor: Tensor) -> bool:
        return not bool(tensor.any()) or (tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()))

    return sorted(name for name in graph.trainable - added if silent(tensors[name]))
