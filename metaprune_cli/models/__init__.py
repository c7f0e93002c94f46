"""Architectures by name, and model files."""

from __future__ import annotations

from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.registry import build, list_architectures, with_input_shape

__all__ = ["Architecture", "build", "list_architectures", "with_input_shape"]
