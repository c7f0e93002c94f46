"""The files that suites are read from: YAML, Python with factories, Python with a table ``MODELS``."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import metaprune_cli
from metaprune_cli.config_loader import brief, module_named
from metaprune_cli.errors import InputError
from metaprune_cli.models.importing import code_digest
from metaprune_cli.models.registry import is_factory
from metaprune_cli.workflows.coverage.entry import OWN, Entry
from metaprune_cli.yaml_text import parse_yaml

TABLE = "MODELS"
"""The name of a table of models in a Python file: name -> what it is of, how it is built, what it takes."""
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "arch": str,
    "name": str,
    "args": dict,
    "input_shape": list,
    "inputs": (dict, list),
    "task": str,
    "package": str,
}
LISTING_S = 300.0
"""How long a file may take to say its models; it imports the packages that they are of."""
_LISTING = f"""
import importlib, json, sys
table = getattr(importlib.import_module(sys.argv[1]), {TABLE!r})
rows = [[str(name), str(row.get("lib") or ""), str(row.get("kind") or "")] for name, row in table.items()]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    json.dump(rows, file)
"""


def read_file(path: Path, text: str, scratch: Path, *, allow_import: bool) -> list[Entry]:
    """The entries of a file.

    Args:
        path: the file.
        text: what is in it.
        scratch: an empty folder.
        allow_import: whether a file with a table may be run to say its models.

    Raises:
        InputError: it is none of the three kinds, or has a table and may not be run.
    """
    if path.suffix != ".py":
        return from_yaml(text, path)
    tree = _parsed(path, text)
    if any(TABLE in _assigned(node) for node in tree.body):
        return _from_table(path, scratch, allow_import=allow_import)
    return _factories(path, tree)


def from_yaml(text: str, path: Path) -> list[Entry]:
    """A list of architectures, or of mappings; a mapping of ``package`` alone says it of all that follow.

    Raises:
        InputError: it is no such list.
    """
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
    return list(_entries(items, path.parent))


def _is_entry(item: object) -> bool:
    """Whether all that is said of a model is of its type."""
    if not isinstance(item, dict) or item.keys() - _TYPES.keys() or not ("arch" in item or item.keys() == {"package"}):
        return False
    shape = item.get("input_shape") or ()
    return (
        all(value is None or isinstance(value, _TYPES[key]) for key, value in item.items())
        and item.get("arch", "") is not None
        and all(type(size) is int and 0 < size < 2**31 for size in shape)
        and all(isinstance(name, str) for name in item.get("args") or ())
    )


def _entries(items: list[dict[str, Any]], folder: Path) -> Iterator[Entry]:
    package = None
    for item in items:
        if "arch" not in item:
            package = item["package"]
            continue
        item["arch"] = module_named(item["arch"])
        shape = item.get("input_shape")
        yield Entry(
            name=item.get("name") or item["arch"].rpartition(":")[2]
            if item["arch"].partition(":")[0] in ("hf", "timm")
            else item.get("name") or item["arch"],
            arch=item["arch"],
            args=item.get("args") or {},
            input_shape=None if shape is None else tuple(shape),
            task=item.get("task") or OWN,
            code=code_digest(item["arch"], folder) if is_factory(item["arch"]) else None,
            inputs=item.get("inputs"),
            package=item.get("package") or package,
        )


def _parsed(path: Path, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # nested too deeply, null characters
        raise InputError(
            "The suite is not Python.", got=str(error) or "expressions nested too deeply", where=path
        ) from error


def _assigned(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _factories(path: Path, tree: ast.Module) -> list[Entry]:
    """The public functions without required arguments, found without running the file; it is imported to call them."""
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


def _from_table(path: Path, scratch: Path, *, allow_import: bool) -> list[Entry]:
    """What a process of its own finds in the table: the file is anybody's code, and may import what ends a process."""
    if not allow_import:
        raise InputError(
            f"The suite has a table {TABLE}, which only running the file can read.",
            where=path,
            next_step="if you trust the file, add --allow-import",
        )
    found = scratch / "rows.json"
    this = Path(metaprune_cli.__file__).parents[1]
    paths = os.pathsep.join([str(path.resolve().parent), str(this), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LISTING, path.stem, str(found)],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=LISTING_S,
            check=False,
        )
        rows = json.loads(found.read_text(encoding="utf-8")) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, OSError, ValueError):
        rows = None
    if rows is None:
        last = "".join(done.stderr.strip().splitlines()[-1:]) if "done" in locals() else f"more than {LISTING_S:g} s"
        raise InputError(
            f"The table {TABLE} of the suite cannot be read.",
            expected="name -> a mapping with build and inputs, and where wanted lib, kind and alt",
            got=last[:400],
            where=path,
        )
    code = code_digest(path.stem, path.parent)
    return [
        Entry(name, f"{path.stem}:{name}", task=kind or OWN, code=code, package=lib or None, table=TABLE)
        for name, lib, kind in rows
    ]
