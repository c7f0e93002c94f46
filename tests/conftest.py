"""Annotations are checked while the tests run, and one thread does the arithmetic: the tests' tensors are tiny."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from beartype.claw import beartype_packages
from jaxtyping import install_import_hook
from type_checker import CONF

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for every process that a test starts

# Before anything of the package is imported. Not api, cli and console: people and terminals hand over what they like.
CHECKED = (
    "artifacts",
    "config",
    "data",
    "graph",
    "methods",
    "metrics",
    "models",
    "pruning",
    "reports",
    "stages",
    "tasks",
    "training",
    "workflows",
)

_FIRST = ("test_hostile_commands.py", "test_pipeline.py", "test_cli_killed.py")
"""What forks its process, which autograd allows only before it has run there; then files of few tests and many minutes:
begun last, they would keep one process busy and leave the other idle."""


@pytest.fixture(autouse=True)
def _own_sys_path() -> Iterator[None]:
    """Folders that a command in this process has put on the path are gone with the test."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands of this process, and those it starts, keep what they remember of the user's words."""
    folder = tmp_path_factory.mktemp("state")
    os.environ["XDG_STATE_HOME"] = str(folder)
    return folder / "metaprune"


@pytest.fixture(autouse=True)
def _nothing_named_yet(state_folder: Path) -> None:
    """No test is allowed an import because another has named the code."""
    for note in state_folder.glob("named-*"):
        note.unlink()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of ``_FIRST`` in its order, then the others in theirs."""
    place = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(_FIRST)))


def _by_jaxtyping() -> list[str]:
    """The modules whose annotations name axes, or names that only the static checker knows, which jaxtyping lets pass.

    It binds the arguments of every call, which takes many times as long as the check.
    """
    spec = find_spec("metaprune_cli")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    paths = [p.relative_to(root).with_suffix("") for p in root.rglob("*.py") if _wants_jaxtyping(p.read_text("utf-8"))]
    return [".".join((root.name, *path.parts)) for path in paths if path.parts[0] in CHECKED]


def _wants_jaxtyping(text: str) -> bool:
    return re.search(r'\[Tensor, "[^"]*[a-z]', text) is not None or "if TYPE_CHECKING:" in text


beartype_packages([f"metaprune_cli.{name}" for name in CHECKED], conf=CONF)
install_import_hook(_by_jaxtyping(), "type_checker.check")
