"""How an artifact was made: enough to make it again, nothing that differs between two equal runs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("metaprune", "torch", "torchvision", "torch-geometric", "safetensors", "numpy", "scikit-learn")


def provenance(command: str, parameters: Mapping[str, Any], seed: int | None = None) -> dict[str, Any]:
    """The document's ``made_by``: command, its parameters, the seed and the versions of what did the work."""
    return {"command": command, "parameters": dict(parameters), "seed": seed, "versions": _versions()}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a source tree, or an optional dependency that is not installed
            continue
    return versions
