"""What users name as ``package.module:name``: their factories of models, their criteria, their tasks."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
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
        with working_directory_on_path():
            found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise InputError(
            f"The {what} could not be imported.",
            expected=f"package.module:{what}, importable from here",
            got=f"{name}: {error}"
            if isinstance(error, ImportError | AttributeError)
            else f"{name}: {type(error).__name__}: {error}",
            where=where,
            next_step="check the spelling, and that the package is installed or in the working directory",
        ) from error
    return found


def code_digest(name: str, folder: Path | None = None) -> str | None:
    """SHA-256 of the source behind ``package.module:name``: its module's file, or of a package all it consists of.

    Nothing is imported. What the source imports in its turn is not part of it.

    Args:
        name: of the function or class.
        folder: where modules are looked for first; None: the working directory.

    Returns:
        64 hexadecimal digits; None where no source is found.
    """
    spec = _spec(name, folder or Path.cwd())
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    files = [origin] if spec.submodule_search_locations is None else sorted(origin.parent.rglob("*.py"))
    whole = hashlib.sha256()
    try:
        for file in files:
            data = file.read_bytes()
            whole.update(os.fsencode(f"{file.relative_to(origin.parent).as_posix()} {len(data)}\n"))
            whole.update(data)
    except OSError:  # built into the interpreter, or in an archive
        return None
    return whole.hexdigest()


def lies_below(name: str, folder: Path) -> bool:
    """Whether the source behind ``package.module:name`` is in a folder or below it; nothing is imported."""
    spec = _spec(name, folder)
    return spec is not None and spec.origin is not None and Path(spec.origin).absolute().is_relative_to(folder)


def _spec(name: str, folder: Path) -> ModuleSpec | None:
    """Of the module, or of the package at the top that it is in."""
    parts = name.partition(":")[0].split(".")
    spec = _top_level(parts[0], folder)
    for depth in range(1, len(parts)):
        if spec is None or spec.origin is not None:
            break
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), spec.submodule_search_locations)  # of a namespace
    return spec


def _top_level(name: str, folder: Path) -> ModuleSpec | None:
    try:
        return PathFinder.find_spec(name, [str(folder)]) or find_spec(name)
    except (ImportError, ValueError):  # a module that was made, not loaded
        return None


@contextmanager
def working_directory_on_path() -> Iterator[None]:
    """The ``metaprune`` script does not put the working directory on ``sys.path`` as ``python -m`` does.

    It comes first while the module is imported, and last from then on: what a factory imports only when it is called
    is found there too, and nothing that is installed can be hidden by it. What the module added stays.
    """
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)
