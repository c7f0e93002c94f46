"""Whether a class follows a removal, and which of its attributes hold widths that have to follow with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from metaprune_cli.errors import MetapruneError
from metaprune_cli.graph.dry_run import Passes, class_failure
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import copied, resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.trace.passes import Skeleton
from metaprune_cli.graph.widths import Recipe, Widths, choices, is_of_settings, recipes_for, widths_by

_TRIES, _TRIES_FOR_REAL = 32, 8
"""Sets of attributes that are tried, at most; a pass that computes something is not quick."""


class Following:
    """Tries removals on a class and remembers what was found; what it learns of attributes holds from then on."""

    def __init__(self, graph: NeuronGraph, skeleton: Skeleton, passes: Passes) -> None:
        """Prepare trials; nothing runs before the first.

        Args:
            graph: the structure, over tensors where the skeleton is.
            skeleton: the model.
            passes: what it runs now, traced.
        """
        self._graph, self._skeleton, self._passes = graph, skeleton, passes
        self._recipes: list[Recipe] = []
        self._found: dict[bytes, str | None] = {}
        self._widths: dict[bytes, Widths] = {}

    @property
    def by_values(self) -> bool:
        """Whether what runs depends on values, which are others in another pass."""
        return self._skeleton.real or any(r.reads_draws or r.sized_by_values or r.choices for _, r in self._passes)

    def failure(self, kept: Tensor) -> str | None:
        """Why the class does not follow; None if it does."""
        key = kept.numpy().tobytes()
        if key not in self._found:
            self._found[key] = self._failure(kept)
        return self._found[key]

    def widths(self, kept: Tensor) -> Widths:
        """The attributes that the class needs set to follow this removal, which it does."""
        return self._widths.get(kept.numpy().tobytes(), {}) if self.failure(kept) is None else {}

    def widths_of(self, small: nn.Module, kept: Tensor) -> Widths:
        """What attributes that were learnt become in a model that is resized already; nothing is tried."""
        return widths_by(recipes_for(small, self._graph, kept), self._recipes) if self._recipes else {}

    def learn(self, kept: Tensor) -> bool:
        """Whether the class follows, perhaps once attributes that hold a width have been found and are set too."""
        if self.failure(kept) is None:
            return True
        try:
            recipes = recipes_for(self._resized(kept), self._graph, kept)
        except MetapruneError:
            return False

        def helps(chosen: Sequence[Recipe]) -> bool:
            return self._try(kept, widths_by(recipes, chosen)) is None

        tries = _TRIES_FOR_REAL if self._skeleton.real else _TRIES
        own = {recipe: values for recipe, values in recipes.items() if not is_of_settings(recipe)}
        rounds = (own, recipes) if len(own) < len(recipes) else (own,)  # settings hold many numbers, few of them asked
        tried = (chosen for some in rounds for chosen in islice(choices(some), tries))
        found = next((chosen for chosen in tried if helps(chosen)), None)
        if found is None:
            return False
        for recipe in found:  # as few as suffice: what is a width by chance alone must not change
            fewer = [other for other in found if other != recipe]
            found = fewer if helps(fewer) else found
        before, found_before = self._recipes, self._found
        self._recipes = [*before, *(recipe for recipe in found if recipe not in before)]
        self._found = {key: reason for key, reason in self._found.items() if reason is None}
        if self.failure(kept) is not None:  # it contradicts what was learnt before
            self._recipes, self._found = before, found_before
            return False
        return True

    def _failure(self, kept: Tensor) -> str | None:
        reason = self._try(kept, {})
        if reason is None or not (widths := self._widths_for(kept)):
            return reason
        if (still := self._try(kept, widths)) is None:
            self._widths[kept.numpy().tobytes()] = widths
        return still

    def _try(self, kept: Tensor, widths: Widths) -> str | None:
        return class_failure(self._graph, self._skeleton, self._passes, kept, widths)

    def _widths_for(self, kept: Tensor) -> Widths:
        try:
            return self.widths_of(self._resized(kept), kept) if self._recipes else {}
        except MetapruneError:
            return {}

    def _resized(self, kept: Tensor) -> nn.Module:
        small = copied(self._skeleton.model)
        resize_(small, {name: tuple(t.shape) for name, t in slice_tensors(self._graph, kept).items()})
        return small


def on_meta(graph: NeuronGraph) -> NeuronGraph:
    """The same structure over tensors without values."""
    return graph.with_tensors({name: torch.empty_like(t, device="meta") for name, t in graph.tensors.items()})
