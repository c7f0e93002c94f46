"""Whether removals can be carried out, told on meta: by the model's class, or else by its program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.dry_run import class_failure, helpful
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.resize import copied, resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.passes import Pass, Skeleton, trace_pass
from metaprune_cli.graph.trace.record import Recording
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.graph.widths import Recipe, Widths, recipes_for, widths_by

T = TypeVar("T")


class Trials:
    """Tries removals from one model, which is traced once for all of them; what was found is remembered."""

    def __init__(self, model: nn.Module, graph: NeuronGraph, example_inputs: ExampleInputs) -> None:
        """Prepare trials; nothing runs before the first.

        Args:
            model: the network; not changed.
            graph: its structure.
            example_inputs: what it was traced with.
        """
        self._model, self._example = model, example_inputs
        self._graph = graph.with_tensors({n: torch.empty_like(t, device="meta") for n, t in graph.tensors.items()})
        self._skeleton = Skeleton.of(model)
        self._found: dict[tuple[str, bytes], str | None] = {}
        self._recipes: list[Recipe] = []
        self._widths: dict[bytes, Widths] = {}

    def failure(self, kept: Tensor) -> str | None:
        """Why neither the class nor the program can do without the units that go; None if one can."""
        return None if self.by_class(kept) is None else self.by_program(kept)

    def by_class(self, kept: Tensor) -> str | None:
        """Why the class does not follow; None if it does, and where control flow depends on data, when it has to."""
        return self._remembered("class", kept, self._by_class)

    def by_program(self, kept: Tensor) -> str | None:
        """Why the program cannot be rewritten; None if it can."""
        return self._remembered("program", kept, self._by_program)

    def _remembered(self, way: str, kept: Tensor, failure: Callable[[Tensor], str | None]) -> str | None:
        key = way, kept.numpy().tobytes()
        if key not in self._found:
            self._found[key] = failure(kept)
        return self._found[key]

    def _by_class(self, kept: Tensor) -> str | None:
        if self._traced is None:
            return None
        reason = class_failure(self._graph, self._skeleton, [self._traced], kept)
        if reason is None or not (widths := self._widths_for(kept)):
            return reason
        if (still := class_failure(self._graph, self._skeleton, [self._traced], kept, widths)) is None:
            self._widths[kept.numpy().tobytes()] = widths
        return still

    @cached_property
    def has_program(self) -> bool:
        """Whether there is a program of the whole model."""
        return self.by_program(torch.ones(self._graph.units.num_units, dtype=torch.bool)) is None

    def widths(self, kept: Tensor) -> Widths:
        """The attributes that the class needs set to follow this removal, which it does."""
        return self._widths.get(kept.numpy().tobytes(), {}) if self.by_class(kept) is None else {}

    def learn(self, kept: Tensor) -> bool:
        """Look for attributes that hold a width, so that the class follows a removal that it does not follow yet.

        What is found holds for all later removals.
        """
        if self._traced is None:
            return False
        found = helpful(self._graph, self._skeleton, [self._traced], kept)
        if found is None:
            return False
        before, found_before = self._recipes, self._found
        self._recipes = [*before, *(recipe for recipe in found if recipe not in before)]
        self._found = {key: reason for key, reason in self._found.items() if key[0] != "class" or reason is None}
        if self.by_class(kept) is not None:  # it contradicts what was learnt before
            self._recipes, self._found = before, found_before
            return False
        return True

    def widths_of(self, small: nn.Module, kept: Tensor) -> Widths:
        """What attributes that were learnt become in a model that is resized already; nothing is tried."""
        return widths_by(recipes_for(small, self._graph, kept), self._recipes) if self._recipes else {}

    def _widths_for(self, kept: Tensor) -> Widths:
        try:
            return self.widths_of(self._resized(kept), kept) if self._recipes else {}
        except MetapruneError:
            return {}

    def _resized(self, kept: Tensor) -> nn.Module:
        small = copied(self._skeleton.model)
        resize_(small, {name: tuple(t.shape) for name, t in slice_tensors(self._graph, kept).items()})
        return small

    def _by_program(self, kept: Tensor) -> str | None:
        try:
            self.captured.without(self._graph, kept)
        except MetapruneError as error:
            return f"its removal breaks the program: {error.what}"
        except Exception as error:  # noqa: BLE001 - whatever an operator makes of other sizes
            return f"its removal breaks the program: {type(error).__name__}: {error}"[:300]
        return None

    @cached_property
    def _traced(self) -> tuple[Pass, Recording] | None:
        """What the model runs now; None where that depends on data."""
        given = Pass(training=False, inputs=self._skeleton.inputs(self._example))
        try:
            return given, trace_pass(self._skeleton, StructureBuilder(), given, self._graph.aliases)
        except InputError:
            return None

    @cached_property
    def captured(self) -> Captured:
        """The program of the whole model."""
        return Captured.of(self._model, self._graph, self._example)


def follows(model: nn.Module, graph: NeuronGraph, kept: Tensor, example_inputs: ExampleInputs) -> bool:
    """Whether the class of ``model`` follows this removal; where control flow depends on data, it has to."""
    return Trials(model, graph, example_inputs).by_class(kept) is None


def at_fault(parts: Sequence[T], failure: Callable[[Sequence[T]], str | None]) -> list[tuple[T, str]] | None:
    """The parts to leave out so that all others pass together, each with the reason; the first are kept longest.

    Parts may pass one by one and fail together: in the given order, each is at fault that fails with those before it.
    Found by bisection, so a few among many take few trials.

    Returns:
        None where nothing can be left out that helps: there is a failure even without any of them.
    """
    passing: list[T] = []
    faults: list[tuple[T, str]] = []
    rest = list(parts)
    reason = failure(rest) if rest else None
    if reason is not None and failure([]) is not None:
        return None
    while reason is not None:
        low, high = 0, len(rest)  # rest[:low] passes, rest[:high] does not
        while high - low > 1:
            middle = (low + high) // 2
            found = failure([*passing, *rest[:middle]])
            low, high, reason = (middle, high, reason) if found is None else (low, middle, found)
        passing += rest[:low]
        faults.append((rest[low], reason))
        rest = rest[high:]
        reason = failure([*passing, *rest]) if rest else None
    return faults
