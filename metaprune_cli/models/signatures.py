"""What the keys of every known architecture's state dict come to, in a file: building all of them takes 20 seconds.

``write(default_keys())`` makes the file anew, after a change to an architecture or with a torchvision that has new
ones; a test says when that is due. An architecture that is not in it is built and compared as before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("signatures.json")
SKETCH = 48
"""Hashes that are kept of an architecture's keys, the smallest ones: by them sets are compared (arXiv 1102.5612)."""


def signature(keys: Iterable[str]) -> str:
    """How many keys a state dict has, and a digest of them, whatever their order."""
    names = sorted(keys)
    return f"{len(names)}-{hashlib.sha256(chr(10).join(names).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def sketch(keys: Iterable[str]) -> str:
    """The ``SKETCH`` smallest of the keys' hashes, 8 hexadecimal digits each."""
    hashes = {hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8] for key in keys}
    return "".join(sorted(hashes)[:SKETCH])


def likeness(one: str, other: str) -> float:
    """The share of the keys of two sketches that both have, estimated from the smallest hashes of both together."""
    mine, theirs = _hashes(one), _hashes(other)
    smallest = sorted(mine | theirs)[:SKETCH]
    return sum(each in mine and each in theirs for each in smallest) / max(1, len(smallest))


def most_keys() -> int:
    """Of any known architecture."""
    return max(int(each.partition("-")[0]) for found in _known().values() for each in found)


def may_have(name: str, found: str) -> bool:
    """Whether an architecture's keys may have this signature: they have, or nothing is known of it."""
    known = _known().get(name)
    return known is None or found in known


def has(found: str) -> bool:
    """Whether any architecture of the file has this signature."""
    return any(found in known for known in _known().values())


def nearest(keys: Iterable[str]) -> list[tuple[str, float]]:
    """The architectures of the file with their likeness to ``keys``, the likest first; those without any left out."""
    own = sketch(keys)
    found = [(name, max(likeness(own, each) for each in sketches)) for name, sketches in _sketches().items()]
    return sorted((pair for pair in found if pair[1] > 0), key=lambda pair: -pair[1])


def _hashes(text: str) -> set[str]:
    return {text[start : start + 8] for start in range(0, len(text), 8)}


@cache
def _read() -> dict[str, dict[str, str]]:
    read: dict[str, dict[str, str]] = json.loads(FILE.read_text(encoding="utf-8"))
    return read


def _known() -> Mapping[str, Sequence[str]]:
    return {name: list(found) for name, found in _read().items()}


def _sketches() -> Mapping[str, Sequence[str]]:
    return {name: list(found.values()) for name, found in _read().items()}


def write(known: Mapping[str, Sequence[Iterable[str]]]) -> None:
    """Make the file anew, of the keys of all architectures that there are, of each variant."""
    found = {name: {signature(keys): sketch(keys) for keys in variants} for name, variants in known.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(each)}" for name, each in found.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
