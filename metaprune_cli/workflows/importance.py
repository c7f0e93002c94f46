"""What an artifact says of its units' importance: the scores that a method gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metaprune_cli.config import Criterion, Normaliser
from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.base import Scores
from metaprune_cli.methods.registry import scoring_method
from metaprune_cli.pruning import importance_at
from metaprune_cli.pruning.criteria import USUAL
from metaprune_cli.pruning.scoring import left_of_scores

KEY, SLOPE, NORMALISER = "importance", "importance_slope", "importance_normaliser"
"""Of the document of a model whose units a method has scored."""


@dataclass(frozen=True)
class Importance:
    """What is added to the logarithm of every unit's score; it holds while the units do.

    Attributes:
        by_unit: one number for every unit.
        normaliser: of the scores it was learnt for.
        slope: for every unit how that changes with the speed-up (see ``pruning.importance_at``); None: it does not.
        criterion: that it is part of, which is the method's own.
    """

    by_unit: tuple[float, ...]
    normaliser: Normaliser
    slope: tuple[float, ...] | None = None
    criterion: Criterion | None = field(default_factory=lambda: scoring_method().criterion)

    @classmethod
    def proposed(cls, scores: Scores) -> Importance:
        """What a method proposes."""
        if scores.values.dim() == 1:
            return cls(tuple(scores.values.tolist()), scores.normaliser)
        level, slope = (tuple(term.tolist()) for term in scores.values.unbind(1))
        return cls(level, scores.normaliser, slope)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Importance | None:
        """What a document says; None where no method has scored the model's units.

        Raises:
            CorruptFileError: it names a normaliser that does not exist.
        """
        if document.get(KEY) is None:
            return None
        normaliser = document.get(NORMALISER, "max")
        if normaliser not in get_args(Normaliser):
            raise CorruptFileError(
                "The model's scores are normalised in an unknown way.",
                expected=", ".join(get_args(Normaliser)),
                got=normaliser,
                next_step="metaprune transform it again",
            )
        slope = document.get(SLOPE)
        return cls(
            tuple(document[KEY]),
            cast("Normaliser", normaliser),
            None if slope is None else tuple(slope),
            scoring_method(document.get("lineage", ())).criterion,
        )

    def to_document(self) -> dict[str, Any]:
        """As plain values."""
        return {
            KEY: list(self.by_unit),
            **({} if self.slope is None else {SLOPE: list(self.slope)}),
            **({} if self.normaliser == "max" else {NORMALISER: self.normaliser}),
        }

    def tensor(self, speedup: float = USUAL) -> Float[Tensor, " units"]:
        """The same at this speed-up, as what ranks units takes it."""
        level = torch.tensor(self.by_unit)
        return (
            level
            if self.slope is None
            else importance_at(torch.stack([level, torch.tensor(self.slope)], dim=1), speedup)
        )

    def left(self, graph: NeuronGraph, kept: Bool[Tensor, " units"], small: NeuronGraph) -> Importance | None:
        """What holds of the units that are kept; None where they cannot be matched."""
        terms = [self.by_unit, *([] if self.slope is None else [self.slope])]
        found = [left_of_scores(torch.tensor(term), graph, kept, small) for term in terms]
        left = [tuple(term.tolist()) for term in found if term is not None]
        if len(left) < len(terms):
            return None
        return replace(self, by_unit=left[0], slope=None if self.slope is None else left[1])
