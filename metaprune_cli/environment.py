"""Numbers that environment variables hold."""

from __future__ import annotations

import os

from metaprune_cli.errors import InputError

DIGITS = 9


def whole_number(name: str, default: int) -> int:
    """What an environment variable says, or ``default`` where it is not set.

    Raises:
        InputError: it is no whole number from 0 on.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise InputError(
            "An environment variable is not a number.",
            expected="a whole number from 0 on",
            got=text[:100],
            where=f"environment variable {name}",
            next_step="torchrun sets it; unset it for a run of one process",
        )
    return int(text)
