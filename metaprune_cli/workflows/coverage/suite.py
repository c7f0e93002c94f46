"""Which models a coverage run tries: torchvision's, one of our lists, or the user's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metaprune_cli.errors import InputError
from metaprune_cli.models import suites, vision
from metaprune_cli.workflows.coverage.entry import Entry
from metaprune_cli.workflows.coverage.suite_files import from_yaml, read_file
from metaprune_cli.yaml_text import read_text

TORCHVISION = "torchvision"


def read_suite(suite: str, only: Sequence[str] = (), *, allow_import: bool = False) -> tuple[Entry, ...]:
    """The entries of a suite.

    Args:
        suite: ``torchvision``, the name of one of our lists (``transformers``, ``timm``, …); a YAML file with a list of
            ``package.module:factory``, or of mappings with ``arch``, and ``name``, ``args``, ``input_shape``,
            ``inputs``, ``task`` and ``package`` where wanted; or a Python file, whose public functions without required
            arguments are factories, or that has a table ``MODELS``: name -> ``build``, ``inputs``, ``alt``, ``lib``,
            ``kind``.
        only: glob patterns, of which the name has to match one.
        allow_import: run a Python file with a table, to see what is in it.

    Raises:
        InputError: no such file, or it is none of these; or nothing matches.
    """
    if suite == TORCHVISION:
        entries = _torchvision()
    elif suite in suites.names():
        entries = from_yaml(read_text(suites.file_of(suite), "The suite"), suites.file_of(suite))
    else:
        with tempfile.TemporaryDirectory(prefix="metaprune-coverage-") as scratch:
            text = read_text(Path(suite), "The suite")
            entries = read_file(Path(suite), text, Path(scratch), allow_import=allow_import)
    chosen = tuple(e for e in entries if not only or any(fnmatch(e.name, pattern) for pattern in only))
    if not chosen:
        raise InputError(
            "The suite has no model of this name." if entries else "The suite is empty.",
            expected=f"one of {', '.join(e.name for e in entries[:10])}, ..." if entries else "at least one model",
            got=", ".join(only) or suite,
            where="--only" if entries else "--suite",
        )
    _check_names(chosen, suite)
    return chosen


def missing_package(entry: Entry) -> str | None:
    """The package that a model is of, if it is not installed."""
    if entry.package is None:
        return None
    try:
        version(entry.package)
    except PackageNotFoundError:
        return entry.package
    return None


def _torchvision() -> list[Entry]:
    entries = []
    for name in vision.names():
        args, shape = vision.small_case(name)
        entries.append(
            Entry(name, f"{TORCHVISION}:{name}", args, shape, vision.task_of(name), vision.count_params(name))
        )
    return entries


def _check_names(entries: Sequence[Entry], suite: str) -> None:
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            "Models of the suite have the same name.", got=", ".join(twice), where=suite, next_step="give each a name"
        )
