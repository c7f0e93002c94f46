"""The file format: one safetensors file with a self-describing, digest-checked header; no pickle."""

from __future__ import annotations

from metaprune_cli.artifacts.aliases import join_aliases, split_aliases
from metaprune_cli.artifacts.format import FORMAT_VERSION, KINDS
from metaprune_cli.artifacts.provenance import provenance
from metaprune_cli.artifacts.read import (
    GIT_LFS,
    Artifact,
    aligned,
    file_sha256,
    is_artifact,
    read_artifact,
    read_document,
)
from metaprune_cli.artifacts.write import write_artifact

__all__ = [
    "FORMAT_VERSION",
    "GIT_LFS",
    "KINDS",
    "Artifact",
    "aligned",
    "file_sha256",
    "is_artifact",
    "join_aliases",
    "provenance",
    "read_artifact",
    "read_document",
    "split_aliases",
    "write_artifact",
]
