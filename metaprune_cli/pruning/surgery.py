"""Removal: a new, smaller network."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor, nn

from metaprune_cli.graph.dry_run import follows
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.capture import program_without
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.resize import fill_, hollow_copy, own_copies, resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.pruning.plan import Plan


def apply_plan(model: nn.Module, graph: NeuronGraph, plan: Plan, example_inputs: ExampleInputs) -> nn.Module:
    """Take the units that ``plan`` gives up out of a copy of ``model``; see :func:`without`."""
    return without(model, graph, plan.kept, example_inputs)


def without(
    model: nn.Module, graph: NeuronGraph, kept: Bool[Tensor, " units"], example_inputs: ExampleInputs
) -> nn.Module:
    """A copy of ``model`` with the units ``kept`` alone.

    The class of the model is kept where it follows its parameters' shapes. Where Python fixes sizes that
    change (the number of an attention's heads, say), the result is the model's program (see ``graph.program``).

    Args:
        model: the network, whose weights are sliced; not changed.
        graph: its structure.
        kept: which units stay.
        example_inputs: what the graph was traced with.

    Returns:
        The smaller network, with the model's parameter names, training mode, ``requires_grad``, devices and dtypes.

    Raises:
        InputError: a module's attributes cannot be brought in line with its new shapes.
        NumericsError: what stays of a tensor would not be rectangular, or the program cannot be rewritten.
    """
    graph = graph.with_tensors(model.state_dict())
    if not follows(model, graph, kept, example_inputs):
        return program_without(model, graph, kept, example_inputs)
    tensors = slice_tensors(graph, kept)
    small = hollow_copy(model)
    resize_(small, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    fill_(small, own_copies(tensors, graph.tensors))
    return small


def route_of(small: nn.Module) -> str:
    """How a model was made smaller: ``class`` or ``program``."""
    return "program" if isinstance(small, Program) else "class"
