"""What users name as ``package.module:name``: their factories of models, their criteria, their tasks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from metaprune_cli.errors import InputError


def import_named(name: str, what: str, *, where: str) -> Callable[..., Any]:
    """Import ``package.module:name``; modules beside the working directory are found too.

    Args:
        name: of the function or class.
        what: a word for it, for errors.
        where: the option or setting that names it.

    Raises:
        InputError: it is not there, or cannot be called.
    """
    found = import_object(name, what, where=where)
    if not callable(found):
        raise InputError(f"The {what} is not callable.", got=f"{name} is a {type(found).__name__}", where=where)
    named: Callable[..., Any] = found
    return named


def import_object(name: str, what: str, *, where: str) -> Any:
    """The same for an object of any kind."""
    module_name, _, attribute = name.partition(":")
    try:
        with _working_directory_on_path():
            found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The {what} could not be imported.",
            expected=f"package.module:{what}, importable from here",
            got=f"{name}: {error}",
            where=where,
            next_step="check the spelling, and that the package is installed or in the working directory",
        ) from error
    return found


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """The ``metaprune`` script does not put the working directory on ``sys.path`` as ``python -m`` does."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds strings
    try:
        yield
    finally:
        sys.path[:] = before
