"""Capture the program of a model for any batch size, and take the units that go out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph.nest import leaves, rebuild
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.merging import merged
from metaprune_cli.graph.program.module import Program, arguments_of
from metaprune_cli.graph.program.rewrite import rewrite
from metaprune_cli.graph.program.script import Mode, Script, Varying
from metaprune_cli.graph.program.types import of_the_models_types
from metaprune_cli.graph.program.varying import Search, inputs_at
from metaprune_cli.graph.slicing import alive_neurons, slice_tensors
from metaprune_cli.graph.structure import Layer
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.neurons import INPUT
from metaprune_cli.graph.trace.passes import Pass, Skeleton, record_pass, trace_pass
from metaprune_cli.graph.trace.record import Recording, Value
from metaprune_cli.graph.trace.tracer import ExampleInputs


@dataclass(frozen=True, eq=False)
class Captured:
    """The program of a model, recorded in both modes, each at several batches, lengths or sizes of images.

    Where the model does not run on others, the program is for the example's sizes only.

    Attributes:
        model: the network; not changed.
        example: what its graph was traced with.
        own: the graph of its recordings.
        modes: each mode's recording, and the sizes of the inputs that may be others than the example's.
    """

    model: nn.Module
    example: ExampleInputs
    own: NeuronGraph
    modes: Mapping[Mode, tuple[Recording, tuple[Varying, ...]]]

    @classmethod
    def of(cls, model: nn.Module, graph: NeuronGraph, example_inputs: ExampleInputs) -> Captured:
        """Record a model.

        Raises:
            InputError: the model does not run on the example inputs.
        """
        skeleton, builder = Skeleton.of(model), StructureBuilder()
        modes: dict[Mode, tuple[Recording, tuple[Varying, ...]]] = {}
        capture = _Capture(skeleton, builder, graph.aliases, example_inputs)
        modes["eval"] = capture.mode(training=False)
        builder.counting = False
        with contextlib.suppress(InputError):  # or else it is a program for evaluation alone
            modes["train"] = capture.mode(training=True, like=modes["eval"][1])
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
        for mode, (recording, varies) in self.modes.items():
            smaller = rewrite(recording, self.own, own_kept, tensors)
            names = {number: f"{mode}_{i}" for i, number in enumerate(smaller.constants)}
            constants |= {names[number]: value.clone() for number, value in smaller.constants.items()}
            scripts[mode] = Script(_bare(smaller), names, _arguments(self.model, self.example, smaller.inputs), varies)
        examples = [(tuple(t.shape), t.dtype) for t in leaves(self.example, Tensor)]
        program = Program(scripts, _entries(self.model, tensors), constants, examples)
        return program.train(self.model.training)


def _arguments(model: nn.Module, example_inputs: ExampleInputs, numbers: Sequence[int]) -> dict[str, Any]:
    """The example inputs by argument, tensors as the values they are in the program."""
    left = iter(numbers)
    named: dict[str, Any] = rebuild(arguments_of(model, example_inputs), Tensor, lambda _: Value(next(left)))
    return named


@dataclass(frozen=True, eq=False)
class _Capture:
    """Records a model in one mode and in the other, into one structure."""

    skeleton: Skeleton
    builder: StructureBuilder
    aliases: Mapping[str, str]
    example: ExampleInputs

    def mode(self, *, training: bool, like: tuple[Varying, ...] | None = None) -> tuple[Recording, tuple[Varying, ...]]:
        """One mode, and the sizes that may be others than the example's: ``like`` those of another mode, if given."""

        def record(inputs: ExampleInputs) -> Recording:
            return record_pass(self.skeleton, Pass(training, self.skeleton.inputs(inputs)), self.aliases)

        search = Search(self.example, record)
        varies = search.found(like)
        traced = self._traced(inputs_at(self.example, varies, 0), training) if varies else None
        for tried in (varies, varies[:1]):
            recordings = search.recordings(tried) if traced else None
            if traced and recordings and (found := merged([traced, *recordings[1:]])) is not None:
                return of_the_models_types(found.recording.folded(found.varying)), tried
        return of_the_models_types(self._traced(self.example, training).folded()), ()

    def _traced(self, inputs: ExampleInputs, training: bool) -> Recording:
        return trace_pass(self.skeleton, self.builder, Pass(training, self.skeleton.inputs(inputs)), self.aliases)


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
