"""What the keys of every known architecture's state dict come to, in a file: building all of them takes 20 seconds.

``write(default_signatures())`` makes the file anew, after a change to an architecture or with a torchvision that has
new ones; a test says when that is due. An architecture that is not in it is built and compared as before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("signatures.json")


def signature(keys: Iterable[str]) -> str:
    """How many keys a state dict has, and a digest of them, whatever their order."""
    names = sorted(keys)
    return f"{len(names)}-{hashlib.sha256(chr(10).join(names).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def most_keys() -> int:
    """Of any known architecture."""
    return max(int(each.partition("-")[0]) for found in _known().values() for each in found)


def may_have(name: str, found: str) -> bool:
    """Whether an architecture's keys may have this signature: they have, or nothing is known of it."""
    known = _known().get(name)
    return known is None or found in known


@cache
def _known() -> dict[str, list[str]]:
    known: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
    return known


def write(known: Mapping[str, Sequence[str]]) -> None:
    """Make the file anew, of the signatures of all architectures that there are."""
    lines = (f"{json.dumps(name)}: {json.dumps(found)}" for name, found in known.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
