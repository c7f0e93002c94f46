"""The document of a model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from metaprune_cli.artifacts.schemas.fields import (
    Architecture,
    Artifact,
    Count,
    Factor,
    Name,
    Normaliser,
    Number,
    Preprocessing,
    Record,
    Restoration,
    Size,
    Text,
    Widths,
)
from metaprune_cli.artifacts.schemas.lineage import Lineage, Zeros

Scores = list[Number]
"""One number for every unit."""


class Family(Record):
    """One family of the plan that a model was pruned by."""

    name: Text
    before: Size
    after: Count
    kept: list[Count] = []
    locked: Text | None
    kind: Literal["channels", "heads"] = "channels"

    @model_validator(mode="after")
    def _no_more_than_before(self) -> Family:
        if self.after > self.before or len(self.kept) > self.before:
            raise ValueError(f"no more than the {self.before} units that there were")
        return self


class Held(Record):
    """A family that had to be locked for the plan to be carried out."""

    family: Text
    reason: Text


class Pruning(Record):
    """The plan of the last pruning: of units (``families``) or of weights (``layers``)."""

    requested: Number | None = None
    speedup: Factor = 1.0
    families: list[Family] | None = None
    held: list[Held] = []
    kind: Text = ""
    pattern: Text | None = None
    sparsity: Number = 0.0
    layers: list[dict[Name, Any]] = []


class Model(Artifact):
    """A model: how to build it, what was done to it, what is known of its units."""

    architecture: Architecture | None = None
    aliases: dict[Name, Name] = {}
    widths: Widths = {}
    lineage: Lineage = []
    zeros: Zeros | None = None
    preprocessing: Preprocessing | None = None
    restoration: Restoration | None = None
    pruning: Pruning | None = None
    history: list[dict[Name, Any]] = []
    task: Text | None = None
    importance: Scores | None = None
    importance_slope: Scores | None = None
    importance_normaliser: Normaliser = "max"

    @model_validator(mode="after")
    def _one_slope_a_score(self) -> Model:
        if self.importance_slope is not None and len(self.importance_slope) != len(self.importance or []):
            raise ValueError("as many slopes of importance as there are scores")
        return self
