"""Lists of small models that ``metaprune coverage`` tries, as data: one file a suite."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """What the suites are called."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def file_of(name: str) -> Path:
    """The file of one of them."""
    return _FOLDER / f"{name}.yaml"
