"""What an artifact says of its units' importance: the words of a metanetwork's score head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune_cli.config import Normaliser
from metaprune_cli.errors import CorruptFileError

KEY, NORMALISER = "importance", "importance_normaliser"
"""Of the document of a model that went through a metanetwork with a score head."""


@dataclass(frozen=True)
class Importance:
    """What is added to the logarithm of every unit's score; it holds while the units do.

    Attributes:
        by_unit: one number for every unit.
        normaliser: of the scores it was learnt for.
    """

    by_unit: tuple[float, ...]
    normaliser: Normaliser

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Importance | None:
        """What a document says; None where no score head has seen the model.

        Raises:
            CorruptFileError: it names a normaliser that does not exist.
        """
        if KEY not in document:
            return None
        normaliser = document.get(NORMALISER, "max")
        if normaliser not in get_args(Normaliser):
            raise CorruptFileError(
                "The model's scores are normalised in an unknown way.",
                expected=", ".join(get_args(Normaliser)),
                got=normaliser,
                next_step="metaprune transform it again",
            )
        return cls(tuple(document[KEY]), cast("Normaliser", normaliser))

    def to_document(self) -> dict[str, Any]:
        """As plain values."""
        return {KEY: list(self.by_unit), **({} if self.normaliser == "max" else {NORMALISER: self.normaliser})}

    def tensor(self) -> Float[Tensor, " units"]:
        """The same, as what ranks units takes it."""
        return torch.tensor(self.by_unit)
