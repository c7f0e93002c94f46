"""The model that a file was made from, where it still lies beside it: told by digests, not by names alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metaprune_cli.artifacts import file_sha256, is_artifact, read_document
from metaprune_cli.places import unreadable
from metaprune_cli.workflows.lineage import descent

MOST = 64
"""Steps of a lineage that are gone back."""


def whole_of(path: Path) -> Path | None:
    """The nearest ancestor of a model that was not pruned yet; None where it is not there, or the model is no artifact.

    Each file on the way lies beside the one that was made of it and has the digest that this one names.
    """
    for file in _back(path):
        if not is_artifact(file):  # somebody else's, which nobody has pruned here
            return file
        if descent(tuple(read_document(file).get("lineage", ())), file).step == "unpruned":
            return file
    return None


def _back(path: Path) -> Iterator[Path]:
    """The file that a model was made from, the one that that was made from, and so on."""
    for _ in range(MOST):
        if not is_artifact(path):
            return
        document = read_document(path)
        lineage, digest = document.get("lineage", ()), document.get("inputs", {}).get("model")
        name = lineage[-1].get("input") if lineage else None
        if not isinstance(name, str) or Path(name).name != name:  # a file's name leads nowhere else
            return
        path = path.parent / name
        if unreadable(path) is not None or file_sha256(path) != digest:
            return
        yield path
