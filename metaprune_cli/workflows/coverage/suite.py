"""Which models a coverage run tries: torchvision's, or the user's list of factories."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from metaprune_cli.config_loader import brief
from metaprune_cli.errors import InputError
from metaprune_cli.models import vision
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.importing import code_digest
from metaprune_cli.models.registry import is_factory
from metaprune_cli.yaml_text import parse_yaml, read_text

TORCHVISION = "torchvision"
OWN = "models"
"""The task of what is not torchvision's."""
_TYPES = {"arch": str, "name": str, "args": dict, "input_shape": list, "task": str}


@dataclass(frozen=True)
class Entry:
    """One model to try.

    Attributes:
        name: of the row.
        arch: what to build (see ``Architecture.name``).
        args: arguments of its builder.
        input_shape: shape of one input without the batch; None where the model, its factory or its kind says it.
        task: under which heading it is reported.
        params: how many parameters it has, where that is known beforehand.
        code: digest of the source that makes it, where that is the user's.
    """

    name: str
    arch: str
    args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    task: str = OWN
    params: int = 0
    code: str | None = None

    @property
    def architecture(self) -> Architecture:
        """What to build."""
        return Architecture(self.arch, dict(self.args), self.input_shape)

    def to_document(self) -> dict[str, Any]:
        """As JSON values, for the process that tries it."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Entry:
        """The inverse of ``to_document``."""
        shape = document["input_shape"]
        return cls(**{**document, "input_shape": None if shape is None else tuple(shape)})


def read_suite(suite: str, only: Sequence[str] = ()) -> tuple[Entry, ...]:
    """The entries of a suite.

    Args:
        suite: ``torchvision``; a YAML file with a list of ``package.module:factory``, or of mappings with ``arch``, and
            ``name``, ``args``, ``input_shape`` and ``task`` where wanted; or a Python file, whose public functions
            without required arguments are factories.
        only: glob patterns, of which the name has to match one.

    Raises:
        InputError: no such file, or it is none of these; or nothing matches.
    """
    entries = _torchvision() if suite == TORCHVISION else _from_file(Path(suite))
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


def _torchvision() -> list[Entry]:
    entries = []
    for name in vision.names():
        args, shape = vision.small_case(name)
        entries.append(
            Entry(name, f"{TORCHVISION}:{name}", args, shape, vision.task_of(name), vision.count_params(name))
        )
    return entries


def _from_file(path: Path) -> list[Entry]:
    text = read_text(path, "The suite")
    return _from_python(path, text) if path.suffix == ".py" else _from_yaml(path, text)


def _from_yaml(path: Path, text: str) -> list[Entry]:
    content = parse_yaml(text, "The suite", path)
    items = [{"arch": item} if isinstance(item, str) else item for item in content] if isinstance(content, list) else []
    wrong = [brief(item) for item in items if not _is_entry(item)]
    if wrong or not items:
        raise InputError(
            "The suite cannot be understood.",
            expected=f"a list of package.module:factory, or of mappings with arch and any of {sorted(_TYPES)}",
            got="; ".join(wrong[:5]) or type(content).__name__,
            where=path,
        )
    return [_entry(item, path.parent) for item in items]


def _is_entry(item: object) -> bool:
    """Whether all that is said of a model is of its type."""
    if not isinstance(item, dict) or item.keys() - _TYPES.keys() or "arch" not in item:
        return False
    shape = item.get("input_shape") or ()
    return (
        all(value is None or isinstance(value, _TYPES[key]) for key, value in item.items())
        and item["arch"] is not None
        and all(type(size) is int and 0 < size < 2**31 for size in shape)
        and all(isinstance(name, str) for name in item.get("args") or ())
    )


def _entry(item: Mapping[str, Any], folder: Path) -> Entry:
    shape = item.get("input_shape")
    return Entry(
        name=item.get("name") or item["arch"],
        arch=item["arch"],
        args=item.get("args") or {},
        input_shape=None if shape is None else tuple(shape),
        task=item.get("task") or OWN,
        code=code_digest(item["arch"], folder) if is_factory(item["arch"]) else None,
    )


def _from_python(path: Path, text: str) -> list[Entry]:
    """The factories of a Python file, found without running it; it is imported where they are called."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # nested too deeply, null characters
        raise InputError(
            "The suite is not Python.", got=str(error) or "expressions nested too deeply", where=path
        ) from error
    names = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not _required(node.args)
    ]
    code = code_digest(path.stem, path.parent)
    return [Entry(name, f"{path.stem}:{name}", code=code) for name in names]


def _required(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return positional > 0 or any(default is None for default in arguments.kw_defaults)


def _check_names(entries: Sequence[Entry], suite: str) -> None:
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            "Models of the suite have the same name.", got=", ".join(twice), where=suite, next_step="give each a name"
        )
