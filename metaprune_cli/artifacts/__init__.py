"""The file format: one safetensors file with a self-describing, digest-checked header; no pickle."""

from __future__ import annotations

from metaprune_cli.artifacts.aliases import join_aliases, split_aliases
from metaprune_cli.artifacts.format import FORMAT_VERSION, KINDS
from metaprune_cli.artifacts.provenance import provenance
from metaprune_cli.artifacts.read import (
    GIT_LFS,
    Artifact,
    file_sha256,
    is_artifact,
    read_artifact,
    read_document,
    read_kind,
)
from metaprune_cli.artifacts.tensors import load_tensors
from metaprune_cli.artifacts.write import write_artifact

__all__ = [
    "FORMAT_VERSION",
    "GIT_LFS",
    "KINDS",
    "Artifact",
    "file_sha256",
    "is_artifact",
    "join_aliases",
    "load_tensors",
    "provenance",
    "read_artifact",
    "read_document",
    "read_kind",
    "split_aliases",
    "write_artifact",
]
