"""Digests that tell data from other data, wherever they lie: no paths, no times."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def digest_of(*parts: str | Tensor) -> str:
    """SHA-256 of texts and tensors (their shapes and types too), in their order, as 64 hexadecimal digits."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            data = part.reshape(-1).view(torch.uint8).numpy().data
            kind = f"{part.dtype} {tuple(part.shape)}"
        else:
            kind, data = "text", memoryview(part.encode("utf-8", "surrogateescape"))
        whole.update(f"{kind} {len(data)}\n".encode())
        whole.update(data)
    return whole.hexdigest()
