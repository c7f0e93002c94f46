"""Removal: a new, smaller network."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool
from torch import Tensor, nn

from metaprune_cli.config import Route
from metaprune_cli.errors import MetapruneError, NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.resize import fill_, hollow_copy, own_copies, resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.graph.trials import Trials
from metaprune_cli.graph.widths import set_widths_
from metaprune_cli.pruning.plan import Plan

Taken = Literal["class", "program"]
"""The route that was taken."""


class UnfitError(NumericsError):
    """A removal that cannot be carried out; ``kept`` are the units that were to stay."""

    def __init__(self, what: str, kept: Tensor, reason: str) -> None:
        super().__init__(
            what,
            expected="a removal that the model's class or its program can follow",
            got=reason,
            next_step="exclude the layers concerned (--ignore); `metaprune prune` does so by itself",
        )
        self.kept, self.reason = kept, reason


def apply_plan(
    model: nn.Module,
    graph: NeuronGraph,
    plan: Plan,
    example_inputs: ExampleInputs,
    *,
    route: Route = "auto",
    trials: Trials | None = None,
) -> nn.Module:
    """Take the units that ``plan`` gives up out of a copy of ``model``; see :func:`without`."""
    return without(model, graph, plan.kept, example_inputs, route=route, trials=trials)


def without(
    model: nn.Module,
    graph: NeuronGraph,
    kept: Bool[Tensor, " units"],
    example_inputs: ExampleInputs,
    *,
    route: Route = "auto",
    trials: Trials | None = None,
) -> nn.Module:
    """A copy of ``model`` with the units ``kept`` alone.

    The class of the model is kept where it follows its parameters' shapes. Where Python fixes sizes that
    change (the number of an attention's heads, say), the result is the model's program (see ``graph.program``).

    Args:
        model: the network, whose weights are sliced; not changed.
        graph: its structure.
        kept: which units stay.
        example_inputs: what the graph was traced with.
        route: ``auto``: the class where it follows; ``class`` or ``program``: that alone.
        trials: of the same model, where some were made before.

    Returns:
        The smaller network, with the model's parameter names, training mode, ``requires_grad``, devices and dtypes.

    Raises:
        UnfitError: neither can do without these units, or not the one that is asked for.
    """
    graph = graph.with_tensors(model.state_dict())
    trials = trials or Trials(model, graph, example_inputs)
    by_class = "it is to become a program" if route == "program" else trials.by_class(kept)
    if by_class is not None:
        reason = by_class if route == "class" else trials.by_program(kept)
        if reason is not None:
            raise UnfitError("The model cannot do without these units.", kept, reason)
        return trials.captured.without(graph, kept)
    try:
        tensors = slice_tensors(graph, kept)
        small = hollow_copy(model)
        resize_(small, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        set_widths_(small, trials.widths(kept))
    except MetapruneError as error:  # what depends on data was not tried
        raise UnfitError("The model cannot do without these units.", kept, str(error)) from error
    fill_(small, own_copies(tensors, graph.tensors))
    return small


def route_of(small: nn.Module) -> Taken:
    """How a model was made smaller: ``class`` or ``program``."""
    return "program" if isinstance(small, Program) else "class"
