"""Shapes of tensors in a file: what holds whatever they are for."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

DIMENSIONS = 32
ELEMENTS = 1 << 48


def find_absurd(tensors: Mapping[str, Tensor]) -> list[str]:
    """Entries whose shapes cannot be meant: a tensor without values can have sizes beyond all memory."""
    return [
        f"tensor {name}: expected a shape that memory can hold, got {list(tensor.shape)[:DIMENSIONS]}"
        for name, tensor in tensors.items()
        if tensor.dim() > DIMENSIONS or math.prod(max(size, 1) for size in tensor.shape) > ELEMENTS
    ]
