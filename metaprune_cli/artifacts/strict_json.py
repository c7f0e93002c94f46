"""JSON from a file that anybody may have made: one meaning for every text, and nothing that breaks what reads it."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

MAX_DEPTH = 100
"""Lists and objects inside each other; ours come to about ten. Far from where Python's recursion ends."""
MAX_BRACKETS = 1 << 20
"""Of lists and objects, in strings too: six for each tensor of a file, some ten thousand in a program."""

# A string (up to the end where it does not end, so that nothing is looked at twice), or what is between brackets.
_NO_BRACKETS = re.compile(r'"(?>[^"\\]+|\\.)*+(?:"|\\?\Z)|[^][{}"]+', re.DOTALL)


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says, more strictly than Python's own parser.

    Raises:
        ValueError: no JSON in UTF-8; a key that is there twice; a number that is not finite; half of a surrogate pair;
            nested deeper than ``MAX_DEPTH``; or with more than ``MAX_BRACKETS``.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    check_brackets(text)
    value = json.loads(
        text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite
    )
    if "\\u" in text:  # escapes are the only way to half a pair in a text that could be decoded
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def check_brackets(text: str) -> None:
    """Bound what a parser would build, before it does.

    Raises:
        ValueError: more brackets than ``MAX_BRACKETS``, or deeper than ``MAX_DEPTH``.
    """
    if (count := sum(map(text.count, "[]{}"))) > MAX_BRACKETS:
        raise ValueError(f"JSON of {count:,} brackets; {MAX_BRACKETS:,} are read")
    depths = accumulate(1 if bracket in "[{" else -1 for bracket in _NO_BRACKETS.sub("", text))
    if max(depths, default=0) > MAX_DEPTH:
        raise ValueError(f"JSON nested more than {MAX_DEPTH} levels deep")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} twice in a JSON object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]}, which is too large")
    return value
