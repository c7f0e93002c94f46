"""Types of fields that several kinds of artifacts share, each with its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

DIMENSIONS = 16
ELEMENTS = 1 << 40
"""More values than any tensor in a file has; a bound for products, so that they stay far from 64 bits."""
INPUT_ELEMENTS = 1 << 26
"""Values of one input: a quarter of a gigabyte."""
STEPS = 1000
CHANNELS, SIDE = 1 << 10, 1 << 11
"""Of the images that a file may ask for: how many channels, how many pixels a side."""


class Record(BaseModel):
    """Fields of exactly these types; what is not named is kept as it is."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, protected_namespaces=())


def _of_fair_size(shape: Sequence[int]) -> Sequence[int]:
    if math.prod(shape) > INPUT_ELEMENTS:
        raise ValueError(f"a shape of at most {INPUT_ELEMENTS} values")
    return shape


Normaliser = Literal["max", "mean", "sum", "rank", "none"]
Text = Annotated[str, Field(max_length=1 << 16)]
Name = Annotated[str, Field(max_length=1 << 12)]
Count = Annotated[int, Field(ge=0, le=ELEMENTS)]
Size = Annotated[int, Field(ge=1, le=ELEMENTS)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Factor = Annotated[float, Field(gt=0, le=1e12)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
InputShape = Annotated[
    list[Annotated[int, Field(ge=1, le=INPUT_ELEMENTS)]],
    Field(max_length=DIMENSIONS),
    AfterValidator(_of_fair_size),
]


Widths = dict[Name, dict[Name, Annotated[int, Field(ge=1, le=1 << 31)]]]
"""Attributes of modules that hold a width, by the module's path and the attribute's name."""


class Architecture(Record):
    """What to build; ``args`` are compared with what the architecture takes when it is built."""

    name: Annotated[str, Field(min_length=1, max_length=1 << 10)]
    args: dict[Name, Any] = {}
    input_shape: InputShape | None = None


class Preprocessing(Record):
    """What happens to images before the model sees them; the bounds keep what a file asks for in memory."""

    mean: Annotated[list[Annotated[float, Field(ge=-1, le=1)]], Field(max_length=CHANNELS)] = []
    std: Annotated[list[Annotated[float, Field(ge=1e-3, le=10)]], Field(max_length=CHANNELS)] = []
    image_size: Annotated[int, Field(ge=1, le=SIDE)] | None = None
    crop: Annotated[float, Field(ge=0.5, le=1)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    channels: Literal["rgb", "bgr"] | None = None


class Restoration(Record):
    """What a model restores: how much larger images become, or which noise goes, of which pixels."""

    scale: Annotated[int, Field(ge=2, le=8)] | None = None
    sigma: Annotated[float, Field(gt=0, le=255)] | None = None
    pixels: Literal["gray", "rgb"] | None = None


class MadeBy(Record):
    """The call that made the file."""

    command: Text = ""
    parameters: dict[Name, Any] = {}
    seed: int | None = None
    versions: dict[Name, Any] = {}


class Artifact(Record):
    """What a document of any kind may have."""

    inputs: dict[Name, Text] = {}
    made_by: MadeBy | None = None
    metrics: dict[Name, Any] | None = None
