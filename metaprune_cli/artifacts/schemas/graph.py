"""The document of a neuron graph; its indices are compared with its tensors in ``graph/checks.py``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from metaprune_cli.artifacts.schemas.fields import (
    DIMENSIONS,
    Architecture,
    Artifact,
    Count,
    Name,
    Preprocessing,
    Record,
    Restoration,
    Size,
    Text,
    Widths,
)
from metaprune_cli.artifacts.schemas.lineage import Lineage, Zeros

FeatureKind = Literal["bias", "scale", "shift", "mean", "variance", "position", "constant"]
Four = Annotated[list[Size], Field(min_length=4, max_length=4)]
FourOrZero = Annotated[list[Count], Field(min_length=4, max_length=4)]
Layer = tuple[Text, Count, Count]
PARTS = 10_000
"""Parts of one sort that each cost time, whatever their size."""


class Index(Record):
    """An index list: a range, or the tensor it is in."""

    shape: Annotated[list[Count], Field(max_length=2)]
    start: Count | None = None
    tensor: Text | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Index:
        if (self.start is None) == (self.tensor is None):
            raise ValueError("either a start or a tensor")
        return self


class Block(Record):
    """A region of an entry that is edges."""

    param: Name
    size: Four
    stride: FourOrZero
    offset: Count
    kernel: Annotated[list[Size], Field(max_length=DIMENSIONS)]
    positions: Count
    destinations: Index
    sources: Index


class Feature(Record):
    """Elements of an entry that belong to single neurons."""

    name: Name
    kind: FeatureKind
    elements: Index
    neurons: Index


class Product(Record):
    """Activations contracted with activations."""

    neurons: Index
    macs_per_neuron: Annotated[int, Field(ge=0, le=1 << 50)]


class Lock(Record):
    """Neurons that stay."""

    neurons: Index
    reason: Text
    plane: Literal["both", "column", "row"] = "both"


class Span(Record):
    """Neurons that are mixed."""

    neurons: Index
    operator: Text


class Structure(Record):
    """All of a graph but its tensors."""

    layers: list[Annotated[Layer, Field(strict=False)]]
    blocks: list[Block]
    features: list[Feature]
    identity: Index
    ties: Index
    columns: Index | None = None
    rows: Index | None = None
    heads: Index | None = None
    products: Annotated[list[Product], Field(max_length=PARTS)]
    locks: Annotated[list[Lock], Field(max_length=PARTS)]
    spans: Annotated[list[Span], Field(max_length=PARTS)]
    verbatim: dict[Name, Text]
    aliases: dict[Name, Name]
    trainable: list[Name]
    entries: list[Name]


class Graph(Artifact):
    """A neuron graph, and what is known of the model it stands for."""

    structure: Structure
    architecture: Architecture | None = None
    widths: Widths = {}
    lineage: Lineage = []
    zeros: Zeros | None = None
    preprocessing: Preprocessing | None = None
    restoration: Restoration | None = None
    program: Any = None
