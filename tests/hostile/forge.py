"""Artifacts that nobody's command would write: any document, with the digest that its content has.

The digest is a checksum, so whoever makes a file can make it: what gets past it is what has to be checked further on.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

KEY = "metaprune"
BLANK = "0" * 64


def forge(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write an artifact of any document; what is not JSON's own (NaN, lone surrogates) included."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # some documents are nested deeply
    try:
        text = json.dumps({**document, "digest": BLANK}, sort_keys=True, separators=(",", ":"))
    finally:
        sys.setrecursionlimit(before)
    data = safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()}, metadata={KEY: text})
    blank = json.dumps(f'"digest":"{BLANK}"')[1:-1].encode()
    digest = hashlib.sha256(data).hexdigest()
    path.write_bytes(data.replace(blank, blank.replace(BLANK.encode(), digest.encode()), 1))


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What happened to a file, and the file after it; never the same bytes."""
    while True:
        how = rng.choice(("flip", "cut", "zeros", "swap", "grow", "noise", "splice"))
        at, length = rng.randrange(len(data)), rng.randrange(1, 1 + len(data) // 4)
        changed = bytearray(data)
        if how == "flip":
            changed[at] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del changed[at:]
        elif how == "zeros":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif how == "swap":
            to = rng.randrange(len(data))
            changed[at : at + 8], changed[to : to + 8] = changed[to : to + 8], changed[at : at + 8]
        elif how == "grow":
            changed += rng.randbytes(length)
        elif how == "noise":
            changed[at : at + length] = rng.randbytes(len(changed[at : at + length]))
        else:
            del changed[at : at + length]
        if changed != data:
            return f"{how} at {at}", bytes(changed)
