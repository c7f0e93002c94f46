"""The document of a metanetwork; its sizes are compared with its tensors in ``methods/metanet/network.py``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from metaprune_cli.artifacts.schemas.fields import DIMENSIONS, Artifact, Name, Normaliser, Record, Size

LAYERS, HIDDEN, KINDS = 1 << 12, 1 << 20, 1 << 4


class Config(Record):
    """``MetaNetworkConfig``, which checks what the fields have to do with each other."""

    model_config = ConfigDict(extra="forbid")

    layers: Annotated[int, Field(ge=1, le=LAYERS)]
    hidden: Annotated[int, Field(ge=2, le=HIDDEN)]
    codec: Literal["coordinate", "per-kernel"] = "coordinate"
    scale_blocks: bool = True
    ratio: Annotated[float, Field(gt=0, le=1e12)]
    kernels: list[Annotated[list[Size], Field(max_length=DIMENSIONS)]] = []
    score_head: bool = False
    normaliser: Normaliser = "max"
    by_speedup: bool = False
    edge_precision: Literal["float32", "bfloat16"] = "float32"
    evidence: Annotated[list[Name], Field(max_length=KINDS)] = []


class Metanetwork(Artifact):
    """A metanetwork."""

    config: Config
