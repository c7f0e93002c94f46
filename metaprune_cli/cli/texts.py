"""How the texts of options are read: rules, numbers, sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress

from metaprune_cli.errors import InputError

Scalar = bool | int | float | str

MOST_NUMBERS = 2**28
"""Of one input: a gibibyte."""


def pruning_rules(texts: Iterable[str]) -> list[dict[str, object]]:
    """``MATCH: KEY=VALUE, KEY`` as the mappings of params.yaml; a key alone is true.

    Raises:
        InputError: a text is not of that form.
    """
    rules: list[dict[str, object]] = []
    for text in texts:
        match, colon, keys = text.rpartition(":")
        parts = [part.strip() for part in keys.split(",")]
        if not colon or not match.strip() or not all(re.fullmatch(r"\w+(=[^=]+)?", part) for part in parts):
            raise InputError(
                "A rule cannot be read.",
                expected="MATCH: KEY=VALUE[, ...], such as 'layer1.*: max_ratio=0.5' or 'type:Linear: ignore'",
                got=text,
                where="--rule",
            )
        pairs = (part.partition("=") for part in parts)
        rules.append(
            {"match": match.strip()}
            | {key: _scalar(value, "--rule") if equals else True for key, equals, value in pairs}
        )
    return rules


def figures(text: str, where: str) -> list[float]:
    """Numbers with commas or spaces between them.

    Raises:
        InputError: they are not; ``where`` is the option.
    """
    try:
        return [float(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise InputError(
            "The figures of the channels cannot be read.",
            expected="a number, or one for each channel, such as 0.485,0.456,0.406",
            got=text[:200],
            where=where,
        ) from None


def key_value(text: str) -> tuple[str, Scalar]:
    """``KEY=VALUE``; the value is a number or a truth value where it looks like one.

    Raises:
        InputError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(
            "An argument of the architecture cannot be read.", expected="KEY=VALUE", got=text, where="--arch-arg"
        )
    return key.strip(), _scalar(value.strip(), "--arch-arg")


def shape(text: str) -> tuple[int, ...]:
    """Sizes with commas, or x, between them.

    Raises:
        InputError: they are no sizes, or too large together.
    """
    try:
        sizes = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1 or math.prod(sizes) > MOST_NUMBERS:
        raise InputError(
            "The input shape cannot be read.",
            expected=f"sizes without the batch, such as 3,224,224, of at most {MOST_NUMBERS} numbers together",
            got=text,
            where="--input-shape",
        )
    return sizes


def _scalar(text: str, where: str) -> Scalar:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float):
        with suppress(ValueError):
            number = read(text)
            if not abs(number) < 2**63:  # nor is NaN
                raise InputError(
                    "A number cannot be used.", expected="a finite number of 64 bits", got=text[:100], where=where
                )
            return number
    return text
