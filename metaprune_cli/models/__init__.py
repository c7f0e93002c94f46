"""Architectures by name, and model files."""

from __future__ import annotations

from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.load import Loaded, load_model, open_model
from metaprune_cli.models.registry import build, list_architectures, with_input_shape
from metaprune_cli.models.save import save_model

__all__ = [
    "Architecture",
    "Loaded",
    "build",
    "list_architectures",
    "load_model",
    "open_model",
    "save_model",
    "with_input_shape",
]
