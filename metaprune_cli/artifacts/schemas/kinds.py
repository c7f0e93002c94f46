"""The schema of every kind of artifact."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from metaprune_cli.artifacts.schemas.checkpoint import Checkpoint
from metaprune_cli.artifacts.schemas.fields import Artifact
from metaprune_cli.artifacts.schemas.graph import Graph
from metaprune_cli.artifacts.schemas.hypernetwork import Hypernetwork
from metaprune_cli.artifacts.schemas.metanetwork import Metanetwork
from metaprune_cli.artifacts.schemas.model import Model

KINDS: Mapping[str, type[Artifact]] = MappingProxyType(
    {
        "checkpoint": Checkpoint,
        "graph": Graph,
        "hypernetwork": Hypernetwork,
        "metanetwork": Metanetwork,
        "model": Model,
    }
)
