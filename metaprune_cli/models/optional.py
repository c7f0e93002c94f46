"""Packages that are imported only where somebody asks for their models."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from metaprune_cli.errors import InputError


def optional(package: str, wanted_for: str) -> Any:
    """The package, imported.

    Args:
        package: its name.
        wanted_for: what it takes the package for, for the error.

    Raises:
        InputError: it is not installed.
    """
    if find_spec(package) is None:
        raise InputError(
            f"The package {package} is not installed.",
            expected=f"{package}, for {wanted_for}",
            next_step="pip install 'metaprune[hf]'",
        )
    return import_module(package)
