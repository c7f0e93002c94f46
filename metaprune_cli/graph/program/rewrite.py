"""Rewrite a recorded program for what is left: every size it states follows from the survivors along each dimension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.operators.registry import operator_of
from metaprune_cli.graph.program.allowed import check_allowed
from metaprune_cli.graph.program.rewrite_moves import creates
from metaprune_cli.graph.program.rewriting import Rewriting
from metaprune_cli.graph.trace.record import Recording
from metaprune_cli.graph.trace.tracer import plain_operators


def rewrite(recording: Recording, graph: NeuronGraph, kept: Tensor, tensors: Mapping[str, Tensor]) -> Recording:
    """The program of the smaller network.

    Args:
        recording: the program, traced with ids.
        graph: the structure whose neurons the ids are.
        kept: which units stay, bool, shape (units,).
        tensors: the sliced entries; only their shapes matter.

    Returns:
        The same operators over smaller tensors; where a constant meets fewer neurons than before, the positions that
        are left are selected from it.

    Raises:
        NumericsError: an operator's arguments cannot be brought in line, or it does not run on what is left, or makes
            another size than what survives; it is named.
    """
    if recording.sized_by_values:
        raise NumericsError("How much there is depends on the values of the inputs, so no program is for all of them")
    creating = [step for step in recording.steps if operator_of(step.operator).rewrite is creates]
    work = Rewriting(recording, graph, kept, tensors, creating)
    with plain_operators():
        for step in recording.steps:
            try:
                if step.answer is None:
                    check_allowed(step.operator)
                rule = operator_of(step.operator).rewrite
                work.write(step if rule is None else rule(work, step), step)
            except NumericsError as error:
                raise NumericsError(f"{error.what}, at {step.operator}", got=error.details["got"]) from None
    return replace(recording, steps=tuple(work.steps), constants={**recording.constants, **work.constants})
