"""How numbers are written for people: one place, so that every table writes them alike."""

from __future__ import annotations

from collections.abc import Sequence

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plain(value: object) -> str:
    """Words and whole numbers as they are, fractions with four significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def count(value: float) -> str:
    """A large count with its decimal prefix: ``12_540_000`` is ``12.5 M``."""
    for size, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * size:  # what rounds to a thousand of the smaller prefix is one of this
            return f"{float(f'{value / size:.3g}'):g} {prefix}"
    return f"{value:g}"


def times(value: float) -> str:
    """A speed-up: ``2.50x``."""
    return f"{value:.2f}x"


def percent(value: float) -> str:
    """A percentage that already is one (93.2 means 93.2 %)."""
    return f"{value:.2f}"


def share(value: float) -> str:
    """A fraction of one as a percentage: ``0.421`` is ``42.1 %``."""
    return f"{100 * value:.3g} %"


def by(sizes: Sequence[int]) -> str:
    """The sizes of a tensor: ``64x3x7x7``."""
    return "x".join(map(str, sizes)) or "scalar"


def millis(value: float) -> str:
    """Milliseconds."""
    return f"{value:.2f}"


def scientific(value: float) -> str:
    """A tiny number such as an error: ``1.2e-07``."""
    return f"{value:.1e}"
