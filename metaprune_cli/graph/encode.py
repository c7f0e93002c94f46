"""Encode a model as its neuron graph, and decode it again."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from metaprune_cli.errors import InputError
from metaprune_cli.graph.dryrun import lock_what_breaks
from metaprune_cli.graph.labels import Elements
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import fill_
from metaprune_cli.graph.rules import rule_of
from metaprune_cli.graph.structure import Structure
from metaprune_cli.graph.trace import ExampleInputs, Tracer, call, meta_copy, plain_operators


def encode(model: nn.Module, example_inputs: ExampleInputs) -> NeuronGraph:
    """Map a model one-to-one onto the graph of its neurons.

    The model runs once on the meta device (nothing is computed) in evaluation mode, and once more in training mode
    where that reaches parameters that evaluation does not (auxiliary heads).

    Args:
        model: any module; it is not changed.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.

    Raises:
        InputError: the model does not run on the example inputs, or its control flow depends on data.
    """
    skeleton = meta_copy(model)
    tensors, trainable, aliases = _entries(model)
    structure = Structure()
    passes = [(False, _to_meta(example_inputs))]
    untouched = _run(skeleton, structure, passes[0], aliases, example_inputs)
    if untouched & trainable:
        training = (True, _to_meta(_doubled(example_inputs)))
        structure.counting = False
        try:
            if _run(skeleton, structure, training, aliases, example_inputs) != untouched:
                passes.append(training)
        except InputError as error:
            for name in untouched & trainable:
                structure.note(name, f"not reached in evaluation mode; training mode fails: {error.details['got']}")
    graph = structure.build(tensors, trainable, aliases)
    on_meta = graph.with_tensors({n: torch.empty_like(t, device="meta") for n, t in tensors.items()})
    locks = lock_what_breaks(on_meta, skeleton, passes)
    return dataclasses.replace(graph, locks=(*graph.locks, *locks))


def decode(graph: NeuronGraph, model: nn.Module) -> nn.Module:
    """A copy of ``model`` (of the same architecture and widths) that holds the graph's tensors.

    Raises:
        InputError: the graph's entries are not the model's.
    """
    decoded = copy.deepcopy(model)
    fill_(decoded, {name: tensor.clone() for name, tensor in graph.tensors.items()})
    return decoded


def _entries(model: nn.Module) -> tuple[dict[str, Tensor], frozenset[str], dict[str, str]]:
    """The state dict, its trainable entries, and the second names of shared tensors."""
    named = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    aliases = {name: first[id(t)] for name, t in named.items() if first.setdefault(id(t), name) != name}
    trainable = frozenset(
        name
        for name, t in named.items()
        if isinstance(t, nn.Parameter) and t.is_floating_point() and name not in aliases
    )
    return {name: t.detach() for name, t in named.items()}, trainable, aliases


def _run(
    skeleton: nn.Module,
    structure: Structure,
    mode_and_inputs: tuple[bool, ExampleInputs],
    aliases: dict[str, str],
    original: ExampleInputs,
) -> frozenset[str]:
    """Trace one pass; returns the entries that are not in the structure afterwards."""
    training, inputs = mode_and_inputs
    tracer = Tracer(structure, rule_of)
    attach_labels(tracer, skeleton, inputs, aliases)
    skeleton.train(training)
    shapes = [tuple(t.shape) for t in tree_leaves(original) if isinstance(t, Tensor)]
    try:
        with warnings.catch_warnings(), plain_operators(), tracer:
            warnings.simplefilter("ignore")
            outputs = call(skeleton, inputs)
    except Exception as error:
        mode = "training" if training else "evaluation"
        raise InputError(
            f"The model does not run on the example inputs in {mode} mode",
            expected="a forward pass whose control flow depends on shapes only",
            got=f"{type(error).__name__}: {error}"[:500],
            where=f"example inputs of shapes {shapes}",
            next_step="check the input shape (--input-shape) and the model's forward",
        ) from error
    for tensor in tree_leaves(outputs):
        ids = tracer.ids(tensor)
        if ids is not None:
            structure.lock(ids, "it is an output of the model")
    reached = {block.param for block in structure.blocks.values()} | {f.name for f in structure.features.values()}
    return frozenset(skeleton.state_dict()).difference(reached, structure.notes, aliases)


def attach_labels(tracer: Tracer, model: nn.Module, inputs: ExampleInputs, aliases: Mapping[str, str]) -> None:
    """Say what a pass starts from: the model's parameters and buffers, and the channels of its inputs."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in aliases and tensor.is_floating_point():
            index = torch.empty(tensor.numel(), dtype=torch.int64, device="meta")
            tracer.attach(tensor, Elements(name, index.view(tensor.shape)))
    for tensor in tree_leaves(inputs):
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            tracer.attach(tensor, _input_ids(tracer.structure, tensor))


def _input_ids(structure: Structure, tensor: Tensor) -> Tensor:
    """One neuron per channel (dimension 1; the last one where there are only two dimensions or fewer)."""
    axis = min(1, tensor.dim() - 1)
    if axis < 0:
        return torch.zeros((), dtype=torch.int64)
    neurons = structure.new_neurons("input", tensor.size(axis))
    structure.lock(neurons, "it is an input of the model")
    shape = [1] * tensor.dim()
    shape[axis] = -1
    return neurons.view(shape).expand(tensor.shape)


def _to_meta(inputs: ExampleInputs) -> Any:
    return tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), inputs)


def _doubled(inputs: ExampleInputs) -> Any:
    """The inputs twice along the batch: batch statistics need more than one value."""
    return tree_map_only(Tensor, lambda t: torch.cat([t, t]) if t.dim() else t, inputs)
