"""What a known architecture may be told: the arguments may come from a file that nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metaprune_cli.errors import InputError

LARGEST = 1 << 20
SIDE = 1 << 12
"""Pixels along a side of an image."""
VALUES = 1 << 10


def check_values(args: Mapping[str, Any], name: str) -> None:
    """Refuse arguments that are not numbers, words and lists of them, or of which no model can be made.

    Args:
        args: keyword arguments.
        name: of the architecture, for the message.

    Raises:
        InputError: naming all of them.
    """
    wrong = [f"{key}={_short(value)}: {problem}" for key, value in args.items() for problem in _problems(key, value)]
    if wrong:
        raise InputError(
            f"No {name} can be built with these arguments.",
            expected=f"numbers up to {LARGEST} (sizes of images up to {SIDE}), words, and lists of them",
            got="\n".join(wrong[:10]),
            where="--arch-arg, or the file",
        )


def _problems(key: str, value: Any) -> Iterator[str]:
    """The first thing that is wrong with an argument, if anything is."""
    values = list(_flat(value))
    largest = SIDE if key.endswith("size") else LARGEST
    if len(values) > VALUES:
        yield f"more than {VALUES} values"
    elif not all(isinstance(one, str | int | float | None) for one in values):
        yield "neither a number nor a word"
    elif any(isinstance(one, int | float) and not abs(one) <= largest for one in values):
        yield f"more than {largest}"


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
