"""The name of a model's class and the arguments to build it with: all that is kept of its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """What to build.

    Attributes:
        name: ``cifar:resnet56``, ``torchvision:resnet50`` or ``package.module:factory``.
        args: keyword arguments of the builder (JSON values).
        input_shape: shape of one input without the batch, (channels, height, width) for images; None where unknown.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None

    def to_document(self) -> dict[str, Any]:
        """As JSON values, for an artifact's document."""
        shape = None if self.input_shape is None else list(self.input_shape)
        return {"name": self.name, "args": dict(self.args), "input_shape": shape}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Architecture:
        """The inverse of ``to_document``."""
        shape = document.get("input_shape")
        return cls(document["name"], dict(document.get("args", {})), None if shape is None else tuple(shape))
