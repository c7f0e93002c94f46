"""Plain JSON: what holds for every value of every document, whatever field it is in."""

from __future__ import annotations

import math
from typing import Any

DEPTH = 64
"""How deeply values may be nested: far from where Python's own recursion ends."""
LONGEST_KEY = 1 << 12
_INTEGERS = range(-(2**63), 2**64)  # what a tensor, a seed or a digest can be

_Place = tuple[Any, str | int] | None
"""Where a value is: the place of what it is in, and its key there."""


def find_odd(document: Any) -> list[str]:
    """What in a parsed document is no plain JSON: each place and what is wrong with it.

    Not a number and infinity, integers that no tensor can hold, text that is not Unicode, keys as long as a page, and
    nesting without end.
    """
    odd: list[str] = []
    level: list[tuple[Any, _Place]] = [(document, None)]
    for _ in range(DEPTH):
        level = [part for value, place in level for part in _parts(value, place, odd)]
        if not level:
            return odd
    return [*odd, f"{_path(level[0][1])[:LONGEST_KEY]}: expected at most {DEPTH} levels, got more"]


def _parts(value: Any, place: _Place, odd: list[str]) -> list[tuple[Any, _Place]]:
    """What is in an object or a list, once its keys and its own values are checked; the findings go to ``odd``."""
    parts: list[tuple[Any, _Place]] = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and not (len(key) <= LONGEST_KEY and is_unicode(key)):
            odd.append(f"{_path(place)}: expected keys of at most {LONGEST_KEY} letters, got one of {len(key)}")
        elif isinstance(item, dict | list):
            parts.append((item, (place, key)))
        elif (problem := _problem(item)) is not None:
            odd.append(f"{_path((place, key))}: {problem}")
    return parts


def _problem(value: Any) -> str | None:
    if isinstance(value, str):
        return None if is_unicode(value) else "expected text, got a part of a character"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"expected a finite number, got {value}"
    if isinstance(value, int) and value not in _INTEGERS:
        return f"expected an integer of 64 bits, got one of {value.bit_length()}"
    return None


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8; JSON can hold halves of characters, which cannot."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _path(place: _Place) -> str:
    keys: list[str] = []
    while place is not None:
        place, key = place
        keys.append(str(key))
    return ".".join(reversed(keys)) or "the document"
