"""Whether removals can be carried out, told on meta: by the model's class, or else by its program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.following import Following, on_meta
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.passes import Skeleton, trace_pass, ways_to_run
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.graph.widths import Widths

T = TypeVar("T")
_TRIES = 32
"""Sets of attributes that are tried, at most."""


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
        self._graph = on_meta(graph)
        self._found: dict[bytes, str | None] = {}

    def failure(self, kept: Tensor) -> str | None:
        """Why neither the class nor the program can do without the units that go; None if one can."""
        return None if self.by_class(kept) is None else self.by_program(kept)

    def by_class(self, kept: Tensor) -> str | None:
        """Why the class does not follow; None if it does."""
        return None if self._following is None else self._following.failure(kept)

    @cached_property
    def has_program(self) -> bool:
        """Whether the model's flow depends on no values, so that its program is the same for all inputs."""
        return self.by_program(torch.ones(self._graph.units.num_units, dtype=torch.bool)) is None

    def by_program(self, kept: Tensor) -> str | None:
        """Why the program cannot be rewritten; None if it can."""
        key = kept.numpy().tobytes()
        if key not in self._found:
            self._found[key] = self._by_program(kept)
        return self._found[key]

    def widths(self, kept: Tensor) -> Widths:
        """The attributes that the class needs set to follow this removal, which it does."""
        return {} if self._following is None else self._following.widths(kept)

    def widths_of(self, small: nn.Module, kept: Tensor) -> Widths:
        """What attributes that were learnt become in a model that is resized already; nothing is tried."""
        return {} if self._following is None else self._following.widths_of(small, kept)

    def learn(self, kept: Tensor) -> bool:
        """Look for attributes that hold a width, so that the class follows a removal that it does not follow yet.

        What is found holds for all later removals.
        """
        return self._following is not None and self._following.learn(kept)

    def _by_program(self, kept: Tensor) -> str | None:
        if self._following is not None and self._following.by_values and not self._is_captured:
            return "what the model runs depends on the values of its inputs: no program is for all of them"
        try:
            self.captured.without(self._graph, kept)
        except MetapruneError as error:
            return f"its removal breaks the program: {error.what}"
        except Exception as error:  # noqa: BLE001 - whatever an operator makes of other sizes
            return f"its removal breaks the program: {type(error).__name__}: {error}"[:300]
        return None

    @cached_property
    def _following(self) -> Following | None:
        """What tries the class, on values where its flow depends on them; None where it does not run."""
        for given, real in ways_to_run(self._model, self._example):
            skeleton = Skeleton.of(self._model, real=real)
            try:
                recording = trace_pass(skeleton, StructureBuilder(), given, self._graph.aliases)
            except InputError:
                continue
            graph = self._graph.with_tensors(self._model.state_dict()) if real else self._graph
            return Following(graph, skeleton, [(given, recording)])
        return None

    @cached_property
    def _is_captured(self) -> bool:
        """Whether a model whose flow depends on data has a program all the same: one for every way it may run."""
        try:
            return bool(self.captured.modes)
        except Exception:  # noqa: BLE001 - whatever the model raises where its questions are answered otherwise
            return False

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
