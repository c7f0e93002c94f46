"""One's own model as people type it: ``mynet.py:MyNet`` for ``mynet:MyNet``; a module alone has its classes listed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from metaprune_cli.errors import InputError

MOST_BYTES = 2**22
"""Of a file of code that is looked at."""


def own_name(arch: str) -> str:
    """The name of an architecture, where a file of code was typed the module in it.

    Nothing is imported.

    Raises:
        InputError: only a file, or its module, was named: what is in it is listed; or it is not below the working
            directory.
    """
    place, colon, name = arch.partition(":")
    file = Path(place) if place.endswith(".py") else Path(f"{place.replace('.', '/')}.py")
    if not place.endswith(".py") and (colon or not file.is_file()):
        return arch
    if not file.is_file():
        raise InputError("There is no such file.", got=place, where="--arch", next_step="check the path")
    here = Path.cwd().resolve()
    if not file.resolve().is_relative_to(here):
        raise InputError(
            "The file is not below the working directory, so its module cannot be found again.",
            got=place,
            where="--arch",
            next_step=f"cd {file.resolve().parent}",
        )
    module = ".".join(file.resolve().relative_to(here).with_suffix("").parts)
    if colon:
        return f"{module}:{name}"
    raise InputError(
        "The file contains no model by itself: name the class or function.",
        expected="\n".join(f"--arch {module}:{found}" for found in _makers(file))
        or "a class or a function: it has none",
        got=arch,
        where="--arch",
        next_step="name one of them",
    )


def _makers(file: Path) -> Iterator[str]:
    """The classes of a file, then its functions, but private ones."""
    try:
        tree = ast.parse(file.read_bytes()[:MOST_BYTES])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for kind in (ast.ClassDef, ast.FunctionDef):
        yield from (node.name for node in tree.body if isinstance(node, kind) and not node.name.startswith("_"))
