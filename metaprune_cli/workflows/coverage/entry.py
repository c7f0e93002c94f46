"""One model of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from metaprune_cli.models.architecture import Architecture

OWN = "models"
"""The task of what is not said to have another."""


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
        inputs: what it takes, by name or in order (see ``making.tensors_of``); None: as its kind says.
        package: that it is of; where that is not installed, it is skipped.
        table: the name of the table in a Python file that builds it and says what it takes.
    """

    name: str
    arch: str
    args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    task: str = OWN
    params: int = 0
    code: str | None = None
    inputs: Mapping[str, Any] | list[Any] | None = None
    package: str | None = None
    table: str | None = None

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
