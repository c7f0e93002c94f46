"""What was done to a model, step by step, and which of its entries are sparse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from metaprune_cli.artifacts.schemas.fields import STEPS, Count, Factor, Name, Number, Record, Seed, Text

Kind = Literal["structured", "unstructured", "n:m", "block"]
Pattern = Annotated[str, Field(pattern=r"^[1-9]\d{0,5}[:x][1-9]\d{0,5}$")]


class Step(Record):
    """One command; its figures are those that it has."""

    command: Text
    input: Text | None = None
    arch: Text | None = None
    seed: Seed | None = None
    metanetwork: Text | None = None
    recalibrated: bool = False
    scored: bool = False
    observed: bool = False
    requested: Factor = 1.0
    achieved: Annotated[float, Field(ge=0, le=1e12)] = 1.0
    total: Factor = 1.0
    criterion: Text = ""
    scope: Literal["global", "family", "sensitivity"] = "global"
    repair: Text | None = None
    search: Count = 0
    rescore: Count = 1
    evaluated: Count = 0
    fitness: Number = 0.0
    weights: Text | None = None
    together: Count = 0
    quantity: Text = ""
    kind: Kind = "structured"
    pattern: Pattern | None = None
    sparsity: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    epochs: Count = 1
    start: Text | None = None
    best_epoch: Count = 0
    teacher: Text | None = None
    mixup: Number = 0.0
    cutmix: Number = 0.0
    ema: Number = 0.0
    patience: Count = 0

    @model_validator(mode="after")
    def _zeroing_says_what(self) -> Step:
        """A zeroing (``sparsify``, or an earlier ``prune`` with a kind) has a kind, a pattern and a sparsity."""
        if self.command == "sparsify" and self.kind == "structured":
            raise ValueError("a kind of sparsity")
        needed = {"n:m": {"pattern"}, "structured": set()}.get(self.kind, {"pattern", "sparsity"})
        if self.command in ("prune", "sparsify") and (missing := needed - self.model_fields_set):
            raise ValueError(f"also {' and '.join(sorted(missing))} of kind {self.kind}")
        return self


def _within_reason(steps: Sequence[Step]) -> Sequence[Step]:
    asked = math.prod(step.requested for step in steps if step.command != "sparsify")
    if not 1e-30 < asked < 1e30:
        raise ValueError("prunings that together come to a speed-up below 10^30")
    return steps


Lineage = Annotated[list[Step], Field(max_length=STEPS), AfterValidator(_within_reason)]


class Zeros(Record):
    """Which entries are sparse, in what pattern."""

    kind: Literal["unstructured", "n:m", "block"]
    pattern: Pattern | None
    entries: list[Name]
