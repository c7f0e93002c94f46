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
from metaprune_cli.graph.program.module import Program, arguments_of
from metaprune_cli.graph.program.rewrite import rewrite
from metaprune_cli.graph.program.script import Mode, Script, Varying
from metaprune_cli.graph.program.types import of_the_models_types
from metaprune_cli.graph.program.varying import Search, inputs_at
from metaprune_cli.graph.slicing import alive_neurons, slice_tensors
from metaprune_cli.graph.structure import Layer
from metaprune_cli.graph.trace.answers import Answers, all_answers
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.neurons import INPUT
from metaprune_cli.graph.trace.passes import FailedPassError, Pass, Skeleton, record_pass, trace_pass
from metaprune_cli.graph.trace.record import Recording, Step, Value
from metaprune_cli.graph.trace.tracer import ExampleInputs


@dataclass(frozen=True, eq=False)
class Way:
    """How a mode runs where data answers its questions in one way, and the sizes that may be others."""

    recording: Recording
    varies: tuple[Varying, ...]

    def checked(self) -> Way:
        """The same, if what is done before a question leaves no trace: it is done again where the answer is another.

        Raises:
            InputError: it does.
        """
        steps = self.recording.steps
        last = max((at for at, step in enumerate(steps) if step.answer is not None), default=0)
        kept = {self.recording.storage(n) for n in (*self.recording.inputs, *self.recording.entries)}
        if any(_tracks(step) or kept & set(map(self.recording.storage, step.written())) for step in steps[:last]):
            raise InputError("The model changes its state before it asks a question about its data")
        return self


def _tracks(step: Step) -> bool:
    """A normalisation in training, which writes its running statistics."""
    return step.operator is torch.ops.aten.native_batch_norm.default and step.args[3] is not None and step.args[5]


@dataclass(frozen=True, eq=False)
class Captured:
    """The program of a model, recorded in both modes, each at several batches, lengths or sizes of images.

    Where the model does not run on others, the program is for the example's sizes only.

    Attributes:
        model: the network; not changed.
        example: what its graph was traced with.
        own: the graph of its recordings.
        modes: the ways each mode may run, the example's first: one, where nothing depends on data.
    """

    model: nn.Module
    example: ExampleInputs
    own: NeuronGraph
    modes: Mapping[Mode, Sequence[Way]]

    @classmethod
    def of(cls, model: nn.Module, graph: NeuronGraph, example_inputs: ExampleInputs) -> Captured:
        """Record a model.

        Raises:
            InputError: the model does not run on the example inputs, or its flow depends on data in other ways than
                by questions that are answered yes or no.
        """
        skeleton, builder = Skeleton.of(model), StructureBuilder()
        capture = _Capture(skeleton, builder, graph.aliases, example_inputs)
        modes: dict[Mode, list[Way]] = {"eval": [capture.way(training=False, first=_answers_on(model, example_inputs))]}
        like = modes["eval"][0].varies
        capture.asks = bool(modes["eval"][0].recording.answers)
        builder.counting = False
        with contextlib.suppress(InputError):  # or else it is a program for evaluation alone
            modes["train"] = [capture.way(training=True, like=like)]
            modes["train"] += capture.otherwise(modes["train"][0], training=True)
        modes["eval"] += capture.otherwise(modes["eval"][0], training=False)
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
        asks = any(way.recording.answers for ways in self.modes.values() for way in ways)
        if asks and bool((~own_kept & ~self.own.units.prunable).any()):  # it returns them there, say
            raise NumericsError("Another way in which the model may run needs what goes")
        scripts: dict[Mode, Script] = {}
        constants: dict[str, Tensor] = {}
        for mode, ways in self.modes.items():
            made: list[Script] = []
            for way in reversed(ways):
                smaller = rewrite(way.recording, self.own, own_kept, tensors)
                names = {n: f"{mode}_{len(constants) + i}" for i, n in enumerate(smaller.constants)}
                constants |= {names[number]: value.clone() for number, value in smaller.constants.items()}
                arguments = _arguments(self.model, self.example, smaller.inputs)
                otherwise = tuple(reversed(made)) if way is ways[0] else ()
                made.append(Script(_bare(smaller), names, arguments, way.varies, otherwise))
            scripts[mode] = made[-1]
        examples = [(tuple(t.shape), t.dtype) for t in leaves(self.example, Tensor)]
        program = Program(scripts, _entries(self.model, tensors), constants, examples)
        return program.train(self.model.training)


def _arguments(model: nn.Module, example_inputs: ExampleInputs, numbers: Sequence[int]) -> dict[str, Any]:
    """The example inputs by argument, tensors as the values they are in the program."""
    left = iter(numbers)
    named: dict[str, Any] = rebuild(arguments_of(model, example_inputs), Tensor, lambda _: Value(next(left)))
    return named


@dataclass(eq=False)
class _Capture:
    """Records a model in one mode and in the other, into one structure; ``asks``: whether there are other ways."""

    skeleton: Skeleton
    builder: StructureBuilder
    aliases: Mapping[str, str]
    example: ExampleInputs
    asks: bool = False

    def way(self, *, training: bool, like: tuple[Varying, ...] | None = None, first: Sequence[bool] = ()) -> Way:
        """How a mode runs where its questions are answered like this.

        Args:
            training: the mode.
            like: the sizes of another way that may be others than the example's.
            first: the answers; no, where there are none.

        Raises:
            InputError: the model does not run so, or what it did before a question cannot be done again.
        """

        def record(inputs: ExampleInputs, number: int) -> Recording:
            return record_pass(self.skeleton, self._pass(inputs, training, first, number), self.aliases)

        search = Search(self.example, record)
        varies = search.found(like)
        if like and varies != like and self.asks:  # an input may matter here that the other way only asked about
            varies = Search(self.example, record).found()
        chosen = not varies and record(self.example, 0).choices
        inputs = inputs_at(self.example, varies, 0)
        traced = self._traced(inputs, training, first, 0) if varies or chosen else None
        for tried in (varies, varies[:1]):
            if traced and (found := search.merged(tried, traced)) is not None:
                return Way(of_the_models_types(found.recording.folded(found.varying)), tried).checked()
        return Way(of_the_models_types(self._traced(self.example, training, first).folded()), ()).checked()

    def otherwise(self, way: Way, *, training: bool) -> list[Way]:
        """All other ways in which a mode may run; those in which the model raises an error are left out."""
        if not way.recording.answers:
            return []
        inputs = inputs_at(self.example, way.varies, 0)

        def ask(answers: Answers) -> None:
            with contextlib.suppress(FailedPassError):
                given = Pass(training, self.skeleton.inputs(inputs), answers, 0)
                record_pass(self.skeleton, given, self.aliases)

        found = []
        for answers in list(all_answers(way.recording.answers, ask))[1:]:
            with contextlib.suppress(FailedPassError):
                found.append(self.way(training=training, like=way.varies, first=answers))
        return found

    def _traced(
        self, inputs: ExampleInputs, training: bool, first: Sequence[bool], numbers: int | None = None
    ) -> Recording:
        return trace_pass(self.skeleton, self.builder, self._pass(inputs, training, first, numbers), self.aliases)

    def _pass(self, inputs: ExampleInputs, training: bool, first: Sequence[bool], numbers: int | None) -> Pass:
        return Pass(training, self.skeleton.inputs(inputs), Answers(first), numbers)


def _answers_on(model: nn.Module, example: ExampleInputs) -> tuple[bool, ...]:
    """What the example's data answers in evaluation mode."""
    probe = Pass(training=False, inputs=example, answers=Answers(), numbers=0)
    skeleton = Skeleton.of(model)
    with contextlib.suppress(FailedPassError):
        record_pass(skeleton, replace(probe, inputs=skeleton.inputs(example)), {})
    if not probe.answers or not probe.answers.asked:
        return ()
    return record_pass(Skeleton.of(model, real=True), Pass(training=False, inputs=example), {}).answers


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
