"""What an artifact says of its zeros: which entries are sparse, and in what pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

KEY = "zeros"
"""Of the document of a sparse model, and of its graph."""


@dataclass(frozen=True)
class Zeros:
    """The entries of a model whose exact zeros are meant to stay; no masks are stored beside them.

    Attributes:
        kind: how they came to be: ``unstructured``, ``n:m`` or ``block``.
        pattern: ``2:4`` or ``4x1``; None where there is none, or none any more.
        entries: names of state-dict entries.
    """

    kind: str
    pattern: str | None
    entries: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Zeros | None:
        """What a document says; None where the model is dense."""
        found = document.get(KEY)
        return None if found is None else cls(found["kind"], found["pattern"], tuple(found["entries"]))

    def to_document(self) -> dict[str, Any]:
        """As plain values."""
        return {KEY: asdict(self) | {"entries": list(self.entries)}}

    def and_before(self, earlier: Zeros | None) -> Zeros:
        """The same with the entries that were sparse before."""
        return self if earlier is None else replace(self, entries=tuple(sorted({*self.entries, *earlier.entries})))

    def of_survivors(self) -> Zeros:
        """Once units are removed: what is left is zero where it was, but no pattern is promised."""
        return Zeros("unstructured", None, self.entries)
