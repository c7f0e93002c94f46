"""One traced forward pass: the labels it leaves in the structure, and the program it ran."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves, map_tensors
from metaprune_cli.graph.operators.registry import rule_of
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.structure import IS_INPUT, IS_OUTPUT
from metaprune_cli.graph.trace.answers import Answers
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.choices import Choices, Numbers
from metaprune_cli.graph.trace.labels import Elements
from metaprune_cli.graph.trace.literals import Literals
from metaprune_cli.graph.trace.neurons import INPUT
from metaprune_cli.graph.trace.record import Recorder, Recording, Value, WholeAttention
from metaprune_cli.graph.trace.tracer import ExampleInputs, Tracer, call, meta_copy, plain_operators
from metaprune_cli.metrics.calling import what_to_call_with


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A model to be run, on meta or (``real``) with values; its parameters want no gradients.

    Attributes:
        model: the copy that runs.
        real: whether it computes anything.
        known: values of buffers on meta that are no parameters of the computation: indices, and constants that are not
            in the state dict.
    """

    model: nn.Module
    real: bool
    known: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, *, real: bool = False) -> Skeleton:
        """A skeleton of ``model``, which is not changed."""
        skeleton = copied(model) if real else meta_copy(model)
        persistent = model.state_dict().keys()
        known = {
            name: buffer.detach().cpu().clone()
            for name, buffer in model.named_buffers()
            if not buffer.is_meta and (name not in persistent or not buffer.is_floating_point())
        }
        return cls(skeleton.requires_grad_(False), real, {} if real else known)

    def inputs(self, example_inputs: ExampleInputs) -> ExampleInputs:
        """The example inputs where the skeleton is."""
        if self.real:
            return map_tensors(example_inputs, lambda t: t.detach().clone())  # type: ignore[no-any-return]
        return map_tensors(example_inputs, lambda t: torch.empty_like(t, device="meta"))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass to be traced.

    Attributes:
        training: the mode.
        inputs: the inputs.
        answers: what it is told where it asks about data.
        numbers: how many there are of what data chooses (see :class:`Choices`); without, what the example says.
    """

    training: bool
    inputs: ExampleInputs
    answers: Answers | None = None
    numbers: Numbers | None = None


def ways_to_run(model: nn.Module, example_inputs: ExampleInputs) -> Iterator[tuple[Pass, bool]]:
    """How a model may be run, the first that works, and whether for real.

    On meta, where data chooses what the example's does. Where that depends on what the model computes: for real, or, if
    that leaves out part of the model (experts that the example chooses nothing for), on meta with numbers made up.
    """
    given = Pass(training=False, inputs=example_inputs)
    yield given, False
    if numbers := _chosen(model, given):
        yield replace(given, numbers=numbers), False
    yield given, True


def _chosen(model: nn.Module, given: Pass) -> tuple[int, ...]:
    """How many the example chooses, choice by choice, where it leaves out part of the model; else nothing."""
    with suppress(InputError):
        if record_pass(Skeleton.of(model), replace(given, numbers=0), {}).choices:
            recording = record_pass(Skeleton.of(model, real=True), replace(given, numbers=()), {})
            parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            if parameters.intersection(recording.entries.values()) - _reached(recording):
                counts = {choice.number: choice.count for choice in recording.choices}
                return tuple(counts.get(number, 1) for number in range(max(counts, default=-1) + 1))
    return ()


def _reached(recording: Recording) -> set[str]:
    """The entries of which something is computed that has elements."""
    names = dict(recording.entries)
    found = set()
    for step in recording.steps:
        met = {names[number] for number in step.inputs() if number in names}
        made = [number for number in step.outputs if number is not None]
        if step.operator.is_view:
            names |= {number: name for number in made for name in met}
        elif any(recording.shapes[number].numel() for number in made):
            found |= met
    return found


def repeated(example_inputs: ExampleInputs, times: int) -> ExampleInputs:
    """The inputs several times along the batch."""
    return map_tensors(  # type: ignore[no-any-return]
        example_inputs,
        lambda t: t if (axis := batch_axis(t, example_inputs)) is None else torch.cat([t] * times, axis),
    )


def batch_axis(tensor: Tensor, example_inputs: ExampleInputs) -> int | None:
    """The dimension of an input that is the batch; None where it has none.

    Examples come in batches of one: it is the first dimension of size 1 among the first two (sequences may come before
    their batch). A tensor without any (an attention mask) has no batch beside others that have; if none has, it is the
    first dimension.
    """
    own = _axis_of_one(tensor)
    if own is not None or tensor.dim() == 0:
        return own
    return None if any(_axis_of_one(other) is not None for other in leaves(example_inputs, Tensor)) else 0


def _axis_of_one(tensor: Tensor) -> int | None:
    return next((d for d in range(min(2, tensor.dim())) if tensor.size(d) == 1), None)


def trace_pass(skeleton: Skeleton, builder: StructureBuilder, given: Pass, aliases: Mapping[str, str]) -> Recording:
    """Trace one pass into ``builder``.

    Raises:
        InputError: the model does not run on these inputs.
    """
    recorder = Recorder()
    tracer = _tracer(skeleton, builder, rule_of, recorder, given)
    inputs = skeleton.inputs(given.inputs)
    attach_labels(tracer, skeleton.model, inputs, aliases)
    recording = _record(skeleton, (given, inputs), aliases, tracer, recorder)
    outputs = list(leaves(recording.outputs, Value))
    if not outputs:
        raise InputError(
            "The model returns nothing in which a tensor could be found",
            expected="a tensor, or sequences, mappings, dataclasses or namespaces around tensors",
            got=f"outputs of the type {type(recording.outputs).__name__}",
            next_step="let its forward return tensors, or encode a module around it that does",
        )
    for value in outputs:
        tracer.used(recording.values[value.number])
        ids = tracer.ids(recording.values[value.number])
        if ids is not None:
            builder.neurons.lock(ids, IS_OUTPUT)
    return recording


def _tracer(
    skeleton: Skeleton, builder: StructureBuilder, rules: Callable[[Any], Any], recorder: Recorder, given: Pass
) -> Tracer:
    choices = None if given.numbers is None else Choices(given.numbers)
    return Tracer(builder, rules, real=skeleton.real, recorder=recorder, answers=given.answers, choices=choices)


def attach_labels(tracer: Tracer, model: nn.Module, inputs: ExampleInputs, aliases: Mapping[str, str]) -> None:
    """Say what a pass starts from: the model's parameters and buffers, and the channels of its inputs."""
    for name, tensor in _entries(model, aliases).items():
        if tensor.is_floating_point():
            index = torch.empty(tensor.numel(), dtype=torch.int64, device="meta")
            tracer.attach(tensor, Elements(name, index.view(tensor.shape)))
    for tensor in leaves(inputs, Tensor):
        if tensor.is_floating_point():
            tracer.attach(tensor, _input_ids(tracer.builder, tensor))


def record_pass(skeleton: Skeleton, given: Pass, aliases: Mapping[str, str]) -> Recording:
    """Only take down the program.

    Raises:
        InputError: the model does not run on these inputs.
    """
    recorder = Recorder()
    tracer = _tracer(skeleton, StructureBuilder(), lambda _: _no_labels, recorder, given)
    return _record(skeleton, (given, skeleton.inputs(given.inputs)), aliases, tracer, recorder)


def _record(
    skeleton: Skeleton,
    what: tuple[Pass, ExampleInputs],
    aliases: Mapping[str, str],
    tracer: Tracer,
    recorder: Recorder,
) -> Recording:
    """Run one pass, and its inputs where the skeleton is."""
    given, placed = what
    buffers = dict(skeleton.model.named_buffers())
    for name, value in skeleton.known.items():
        if name in buffers:
            tracer.attach(buffers[name], None, value.clone())
    inputs = list(leaves(placed, Tensor))
    for tensor, value in zip(inputs, leaves(given.inputs, Tensor), strict=True):
        if not skeleton.real and not value.is_meta:
            tracer.show(tensor, value.detach().cpu().clone())
    skeleton.model.train(given.training)
    with _explained(given):
        with ExitStack() as stack:
            stack.enter_context(plain_operators(skeleton.model))
            stack.enter_context(tracer)
            stack.enter_context(WholeAttention(recorder, tracer))
            if not skeleton.real:
                stack.enter_context(Literals(tracer.stand_in))
            outputs = call(skeleton.model, placed)
        return recorder.finish(inputs, _entries(skeleton.model, aliases), outputs)


class FailedPassError(InputError):
    """The model, or what follows it, raised an error while it ran."""


@contextmanager
def _explained(given: Pass) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        mode = "training" if given.training else "evaluation"
        raise FailedPassError(
            f"The model does not run on the example inputs in {mode} mode",
            expected="a forward pass that runs on them",
            got=f"{type(error).__name__}: {error}"[:500],
            where=f"example inputs of shapes {[tuple(t.shape) for t in leaves(given.inputs, Tensor)]}",
            next_step=what_to_call_with(given.inputs),
        ) from error


def _entries(model: nn.Module, aliases: Mapping[str, str]) -> dict[str, Tensor]:
    return {n: t for n, t in model.state_dict(keep_vars=True).items() if n not in aliases}


def _no_labels(*_: Any) -> None:
    return None


def _input_ids(builder: StructureBuilder, tensor: Tensor) -> Tensor:
    """One neuron per channel (dimension 1; the last one where there are only two dimensions or fewer)."""
    axis = min(1, tensor.dim() - 1)
    if axis < 0:
        return torch.zeros((), dtype=torch.int64)
    neurons = builder.neurons.new(INPUT, tensor.size(axis))
    builder.neurons.lock(neurons, IS_INPUT)
    shape = [1] * tensor.dim()
    shape[axis] = -1
    return neurons.view(shape).expand(tensor.shape)
