"""The document of a network that makes weights; it is compared with its tensors and its model where that is built."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from metaprune_cli.artifacts.schemas.fields import (
    Architecture,
    Artifact,
    Count,
    Name,
    Preprocessing,
    Record,
    Text,
    Widths,
)
from metaprune_cli.artifacts.schemas.lineage import Lineage

HIDDEN, FAMILIES = 1 << 12, 1 << 20
Number = Annotated[int, Field(ge=1, le=FAMILIES)]


class Config(Record):
    """``PruningNetConfig``."""

    model_config = ConfigDict(extra="forbid")

    generator: Literal["full", "factored", "shared"]
    encoding: Literal["own", "neighbours", "whole"]
    hidden: Annotated[int, Field(ge=1, le=HIDDEN)]
    sandwich: bool = False


class Sampling(Record):
    """``Sampler``, without the space."""

    how: Literal["uniform", "budget"]
    speedup_max: Annotated[float, Field(gt=1, le=1e12)]


class Family(Record):
    """A family of the model's units, free or not."""

    name: Name
    units: Count


class Gene(Record):
    """The widths that some families, which are tied, may have; the order of their units is a tensor."""

    families: Annotated[list[Count], Field(min_length=1, max_length=FAMILIES)]
    grid: Annotated[list[Number], Field(min_length=1, max_length=FAMILIES)]

    @model_validator(mode="after")
    def _ascending(self) -> Gene:
        if any(low >= high for low, high in zip(self.grid, self.grid[1:], strict=False)):
            raise ValueError("numbers of units that ascend")
        return self


class Hypernetwork(Artifact):
    """A PruningNet: the model it is of, and what is learnt beside that."""

    method: Literal["pruning-net"]
    architecture: Architecture
    config: Config
    sampling: Sampling
    route: Literal["class", "program"]
    genes: Annotated[list[Gene], Field(min_length=1, max_length=FAMILIES)]
    signature: list[Family]
    aliases: dict[Name, Name] = {}
    widths: Widths = {}
    lineage: Lineage = []
    preprocessing: Preprocessing | None = None
    history: list[dict[Name, Any]] = []
    task: Text | None = None
