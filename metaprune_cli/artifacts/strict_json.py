"""JSON from a file that anybody may have made: one meaning for every text, and nothing that breaks what reads it."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 100
"""Lists and objects inside each other; ours come to about ten. Far from where Python's recursion ends."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says, more strictly than Python's own parser.

    Raises:
        ValueError: no JSON in UTF-8; a key that is there twice; a number that is not finite; half of a surrogate pair;
            or nested deeper than ``MAX_DEPTH``.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_depth(value)
    if "\\u" in text:  # escapes are the only way to half a pair in a text that could be decoded
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


_TOO_DEEP = f"JSON nested more than {MAX_DEPTH} levels deep"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in found if keys.count(key) > 1)!r} twice in a JSON object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]}, which is too large")
    return value


def _check_depth(value: Any) -> None:
    """Level by level, so that depth costs no recursion."""
    level: list[dict[str, Any] | list[Any]] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        inside = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in inside if isinstance(child, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
