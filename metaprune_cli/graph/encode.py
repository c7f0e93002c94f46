"""Encode a model as its neuron graph, and decode it again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.breaking import lock_what_breaks
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.resize import fill_, hollow_copy
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.passes import (
    FailedPassError,
    Pass,
    Skeleton,
    record_pass,
    repeated,
    trace_pass,
    ways_to_run,
)
from metaprune_cli.graph.trace.reach import might_meet, reachable
from metaprune_cli.graph.trace.record import Recording
from metaprune_cli.graph.trace.tracer import ExampleInputs, call
from metaprune_cli.metrics.calling import takes_model


@takes_model
def encode(model: nn.Module, example_inputs: ExampleInputs) -> NeuronGraph:
    """Map a model one-to-one onto the graph of its neurons.

    The model runs once on the meta device (nothing is computed) in evaluation mode, and once more in training mode
    where that reaches parameters that evaluation does not (auxiliary heads). What control flow asks of the inputs is
    answered by the example's; where it depends on what parameters make of them (detection), all runs on real values.

    Args:
        model: any module; it is not changed.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.

    Raises:
        InputError: the model does not run on the example inputs, or cannot be traced on them.
    """
    _refuse_compiled(model)
    _refuse_empty(example_inputs)
    tensors, trainable, aliases = _entries(model)
    skeleton, builder, passes = _traced(model, example_inputs, trainable, aliases)
    if any(skeleton.real or recording.reads_draws or recording.choices for _, recording in passes):
        _lock_reachable(model, builder, _untouched(skeleton.model, builder, aliases) & trainable)
    graph = builder.build(tensors, trainable, aliases)
    locks = lock_what_breaks(graph, skeleton, passes, lambda: Captured.of(model, graph, example_inputs))
    return graph.with_locks((*graph.locks, *locks))


def _traced(
    model: nn.Module, example_inputs: ExampleInputs, trainable: frozenset[str], aliases: dict[str, str]
) -> tuple[Skeleton, StructureBuilder, list[tuple[Pass, Recording]]]:
    """On the example's values, on made-up numbers of what data chooses, or for real, whichever works first."""
    for given, real in ways_to_run(model, example_inputs):
        with _explained(model, example_inputs) if real else suppress(Exception):  # perhaps its flow depends on values
            return _trace(model, given, trainable, aliases, real=real)
    raise AssertionError("one of them runs, or says why not")


def _refuse_compiled(model: nn.Module) -> None:
    """A scripted module that holds tensors has neither a class to build it from nor tensors that can be replaced."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and module.state_dict():
            raise InputError(
                "Part of the model is TorchScript, which cannot be taken apart.",
                expected="modules of Python classes",
                got=f"{name or 'the model'} is a {type(module).__name__}",
                next_step="build the model without torch.jit.script or torch.jit.trace and load its state dict",
            )


def _refuse_empty(example_inputs: ExampleInputs) -> None:
    shapes = [tuple(tensor.shape) for tensor in leaves(example_inputs, Tensor)]
    if shapes and not any(map(math.prod, shapes)):
        raise InputError("The example inputs are empty.", expected="a batch of one", got=f"inputs of shapes {shapes}")


def _lock_reachable(model: nn.Module, builder: StructureBuilder, missed: frozenset[str]) -> None:
    """Lock what parameters could meet that the example inputs did not reach, and others might."""
    named = dict(model.named_parameters())
    for entry in reachable(model, missed):
        reason = f"control flow depends on data, and the example inputs did not reach {entry}"
        for layer in might_meet(builder.neurons.layers, [named[entry].shape]):
            builder.neurons.lock(torch.arange(layer.start, layer.start + layer.size), reason)


@contextmanager
def _explained(model: nn.Module, example_inputs: ExampleInputs) -> Iterator[None]:
    """Say whether the model or its trace is at fault."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) and not isinstance(error, FailedPassError):
            raise  # it says what is the matter
        skeleton = Skeleton.of(model, real=True)
        try:
            with torch.no_grad():
                call(skeleton.model.eval(), skeleton.inputs(example_inputs))
        except Exception:  # noqa: BLE001 - whatever the model raises: then the inputs are wrong, as the error says
            raise error from None
        raise InputError(
            "The model runs on the example inputs, but metaprune cannot follow an operation in it.",
            expected="operations of PyTorch on tensors",
            got=error.details["got"] if isinstance(error, InputError) else f"{type(error).__name__}: {error}"[:500],
            next_step="see which operation it is (--debug), and write it in another way or leave it out of the model",
        ) from error


@takes_model
def decode(graph: NeuronGraph, model: nn.Module) -> nn.Module:
    """A copy of ``model`` (of the same architecture and widths) that holds the graph's tensors.

    Raises:
        InputError: the graph's entries are not the model's.
    """
    decoded = hollow_copy(model)
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


def _trace(
    model: nn.Module, evaluation: Pass, trainable: frozenset[str], aliases: dict[str, str], *, real: bool
) -> tuple[Skeleton, StructureBuilder, list[tuple[Pass, Recording]]]:
    """The evaluation pass, and a training pass where it reaches trainable entries that the first one does not."""
    skeleton, builder = Skeleton.of(model, real=real), StructureBuilder()
    passes = [(evaluation, trace_pass(skeleton, builder, evaluation, aliases))]
    untouched = _untouched(skeleton.model, builder, aliases)
    if not untouched & trainable:
        return skeleton, builder, passes
    builder.counting = False
    try:
        training, recording = _trace_training(skeleton, builder, evaluation, aliases)
    except InputError as error:
        for name in untouched & trainable:
            builder.note(name, f"not reached in evaluation mode; training mode fails: {error.details['got']}")
        return skeleton, builder, passes
    if _untouched(skeleton.model, builder, aliases) != untouched:
        passes.append((training, recording))
    return skeleton, builder, passes


def _trace_training(
    skeleton: Skeleton, builder: StructureBuilder, evaluation: Pass, aliases: dict[str, str]
) -> tuple[Pass, Recording]:
    """In training mode, with a batch of two where it can be had: batch statistics need more than one value."""
    try:
        training = replace(evaluation, training=True, inputs=repeated(evaluation.inputs, 2))
        record_pass(skeleton, training, aliases)
    except InputError:
        training = replace(evaluation, training=True)
    return training, trace_pass(skeleton, builder, training, aliases)


def _untouched(model: nn.Module, builder: StructureBuilder, aliases: dict[str, str]) -> frozenset[str]:
    """The entries that are not in the structure."""
    reached = {block.param for block in builder.blocks.values()} | {f.name for f in builder.features.values()}
    return frozenset(model.state_dict()).difference(reached, builder.notes, aliases)
