"""Capture the program of a model for any batch size, and take the units that go out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph.arguments import map_in
from metaprune_cli.graph.nest import leaves, rebuild
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.module import Program, arguments_of
from metaprune_cli.graph.program.rewrite import rewrite
from metaprune_cli.graph.program.script import Mode, Script
from metaprune_cli.graph.slicing import alive_neurons, slice_tensors
from metaprune_cli.graph.structure import Layer
from metaprune_cli.graph.trace.builder import INPUT, StructureBuilder
from metaprune_cli.graph.trace.passes import Pass, Skeleton, batch_axis, record_pass, repeated, trace_pass
from metaprune_cli.graph.trace.record import Recording, Size, Step, TypeOf, Value
from metaprune_cli.graph.trace.tracer import ExampleInputs

_TIMES = (2, 3, 4)
"""How often the example is repeated along the batch: two runs tell how sizes grow with it, the third confirms it."""


@dataclass(frozen=True, eq=False)
class Captured:
    """The program of a model, recorded in both modes, each at several batch sizes, so that it takes any.

    Where the model does not run on a repeated example, the program is for the example's sizes only.

    Attributes:
        model: the network; not changed.
        example: what its graph was traced with.
        own: the graph of its recordings.
        modes: each mode's recording, and which dimension of the first input is a batch of any size.
    """

    model: nn.Module
    example: ExampleInputs
    own: NeuronGraph
    modes: Mapping[Mode, tuple[Recording, int | None]]

    @classmethod
    def of(cls, model: nn.Module, graph: NeuronGraph, example_inputs: ExampleInputs) -> Captured:
        """Record a model.

        Raises:
            InputError: the model does not run on the example inputs.
        """
        skeleton, builder = Skeleton.of(model), StructureBuilder()
        modes: dict[Mode, tuple[Recording, int | None]] = {}
        modes["eval"] = _capture(skeleton, builder, graph.aliases, example_inputs, training=False)
        builder.counting = False
        with contextlib.suppress(InputError):  # or else it is a program for evaluation alone
            modes["train"] = _capture(skeleton, builder, graph.aliases, example_inputs, training=True)
        own = builder.build(graph.tensors, graph.trainable, graph.aliases)
        return cls(model, example_inputs, own, modes)

    def without(self, graph: NeuronGraph, kept: Tensor) -> Program:
        """The program without the units that go.

        Args:
            graph: the model's structure, over the tensors that the program is to hold slices of.
            kept: which of its units stay, bool, shape (units,).

        Raises:
            NumericsError: the program cannot be rewritten for what is left.
        """
        tensors = slice_tensors(graph, kept)
        own_kept = _carried_over(graph, kept, self.own)
        scripts: dict[Mode, Script] = {}
        constants: dict[str, Tensor] = {}
        for mode, (recording, batched) in self.modes.items():
            smaller = _of_the_models_types(rewrite(recording, self.own, own_kept, tensors))
            names = {number: f"{mode}_{i}" for i, number in enumerate(smaller.constants)}
            constants |= {names[number]: value.clone() for number, value in smaller.constants.items()}
            scripts[mode] = Script(_bare(smaller), names, _arguments(self.model, self.example, smaller.inputs), batched)
        examples = [(tuple(t.shape), t.dtype) for t in leaves(self.example, Tensor)]
        program = Program(scripts, _entries(self.model, tensors), constants, examples)
        return program.train(self.model.training)


def _arguments(model: nn.Module, example_inputs: ExampleInputs, numbers: Sequence[int]) -> dict[str, Any]:
    """The example inputs by argument, tensors as the values they are in the program."""
    left = iter(numbers)
    named: dict[str, Any] = rebuild(arguments_of(model, example_inputs), Tensor, lambda _: Value(next(left)))
    return named


def _capture(
    skeleton: Skeleton, builder: StructureBuilder, aliases: Mapping[str, str], example: ExampleInputs, *, training: bool
) -> tuple[Recording, int | None]:
    """One mode, and which dimension of the first input is a batch of any size."""

    def given(times: int) -> Pass:
        return Pass(training, skeleton.inputs(repeated(example, times)))

    try:
        others = [record_pass(skeleton, given(times), aliases) for times in _TIMES]
        axis, once = _batch_of(example)
        sizes = [once * times for times in _TIMES]
        merged, varying = _merge(others[0], others[1], sizes[0], sizes[1])
        _confirm(merged, others[2], sizes[2])
    except (InputError, _NotBatchedError):
        return trace_pass(skeleton, builder, Pass(training, skeleton.inputs(example)), aliases).folded(), None
    traced = trace_pass(skeleton, builder, given(_TIMES[0]), aliases)
    steps = tuple(
        replace(step, args=other.args, kwargs=other.kwargs) for step, other in zip(traced.steps, merged, strict=True)
    )
    return replace(traced, steps=steps).folded(varying), axis


class _NotBatchedError(Exception):
    """The program depends on the batch in another way than through sizes."""


def _batch_of(example: ExampleInputs) -> tuple[int, int]:
    """The dimension of the first input that is the batch, and its size."""
    first = next(leaves(example, Tensor), None)
    axis = None if first is None else batch_axis(first, example)
    if first is None or axis is None:
        raise _NotBatchedError
    return axis, first.size(axis)


def _merge(first: Recording, second: Recording, batch: int, larger: int) -> tuple[tuple[Step, ...], frozenset[int]]:
    """The steps with the sizes that depend on the batch, and the values that do."""
    if [s.operator for s in first.steps] != [s.operator for s in second.steps]:
        raise _NotBatchedError
    steps = []
    for a, b in zip(first.steps, second.steps, strict=True):
        (ours, spec), (theirs, other) = tree_flatten((a.args, a.kwargs)), tree_flatten((b.args, b.kwargs))
        if spec != other:
            raise _NotBatchedError
        merged = [_grown(x, y, batch, larger) for x, y in zip(ours, theirs, strict=True)]
        args, kwargs = tree_unflatten(merged, spec)
        steps.append(replace(a, args=args, kwargs=kwargs))
    varying = {n for n, (x, y) in enumerate(zip(first.values, second.values, strict=True)) if x.shape != y.shape}
    for number, value in first.constants.items():
        if number not in varying and not _same(value, second.constants.get(number)):
            varying.add(number)
    return tuple(steps), frozenset(varying)


def _grown(here: Any, there: Any, batch: int, larger: int) -> Any:
    if here == there and type(here) is type(there):
        return here
    if isinstance(here, float) and isinstance(there, float) and here != here and there != there:
        return here  # not a number, both times
    if type(here) is not int or type(there) is not int:
        raise _NotBatchedError
    per_item, rest = divmod(there - here, larger - batch)
    if rest:
        raise _NotBatchedError
    return Size(here - per_item * batch, per_item, here)


def _confirm(steps: tuple[Step, ...], third: Recording, batch: int) -> None:
    if [s.operator for s in steps] != [s.operator for s in third.steps]:
        raise _NotBatchedError
    for expected, found in zip(steps, third.steps, strict=True):
        ours, theirs = tree_flatten((expected.args, expected.kwargs))[0], tree_flatten((found.args, found.kwargs))[0]
        for size, seen in zip(ours, theirs, strict=True):
            if isinstance(size, Size) and size.fixed + size.per_item * batch != seen:
                raise _NotBatchedError


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.dtype == other.dtype and torch.equal(value, other)


def _carried_over(graph: NeuronGraph, kept: Tensor, own: NeuronGraph) -> Tensor:
    """Which units of the program's own trace stay: those of the neurons that it shares with the graph.

    Raises:
        NumericsError: the program's neurons are not the graph's, or it couples units of which some go and some stay.
    """
    here, there = _corresponding(own.layers, graph.layers)
    carried = torch.ones(own.units.num_units, dtype=torch.bool)
    for ours, theirs in ((own.units.unit_of, graph.units.unit_of), (own.units.row_of, graph.units.row_of)):
        known = theirs[there] >= 0
        owner, value = ours[here][known], kept[theirs[there][known]]
        if bool((owner < 0).any()):
            raise NumericsError("The program's units are not those of the graph")
        carried[owner[~value]] = False
    if not torch.equal(alive_neurons(own, carried)[here], alive_neurons(graph, kept)[there]):
        raise NumericsError("The program in training mode couples units that evaluation mode does not")
    return carried


def _corresponding(own: Sequence[Layer], known: Sequence[Layer]) -> tuple[Tensor, Tensor]:
    """The neurons that two traces of one model share, as ids of the one and of the other.

    ``own`` may be a trace with another batch, and go on where ``known`` ends. Inputs are left out: where the batch is
    their second dimension, there is a neuron for each of its items.

    Raises:
        NumericsError: the one is not the beginning of the other.
    """
    pairs = list(zip(own, known, strict=False))
    if len(own) < len(known) or any(a.name != b.name or (a.size != b.size and a.name != INPUT) for a, b in pairs):
        raise NumericsError("The program's neurons are not those of the graph", next_step="encode the model again")
    shared = [(a, b) for a, b in pairs if a.size == b.size]
    here = [torch.arange(a.start, a.start + a.size) for a, _ in shared]
    return torch.cat(here), torch.cat([torch.arange(b.start, b.start + b.size) for _, b in shared])


def _of_the_models_types(recording: Recording) -> Recording:
    """Floating-point types that entries have are written as the first such entry's, whatever that will be."""
    first: dict[torch.dtype, TypeOf] = {}
    for number in recording.entries:
        dtype = recording.values[number].dtype
        if dtype.is_floating_point:
            first.setdefault(dtype, TypeOf(number, dtype))

    def follow(dtype: torch.dtype) -> Any:
        return first.get(dtype, dtype)

    def step_of(step: Step) -> Step:
        args, kwargs = map_in(torch.dtype, follow, (step.args, step.kwargs))
        return replace(step, args=args, kwargs=kwargs)

    return replace(recording, steps=tuple(map(step_of, recording.steps)))


def _bare(recording: Recording) -> Recording:
    """Without labels and shapes, which nothing needs any more."""
    steps = tuple(replace(step, labels={}) for step in recording.steps)
    return replace(recording, steps=steps, values=(), constants={})


def _entries(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """New parameters and buffers; what was shared is shared again."""
    made: dict[int, Tensor] = {}
    entries = {}
    for name, old in model.state_dict(keep_vars=True).items():
        if id(old) not in made:
            tensor = tensors[name].clone()
            made[id(old)] = nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
        entries[name] = made[id(old)]
    return entries
