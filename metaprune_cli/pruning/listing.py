"""Layers before and after as a small table of plain text, for whoever looks at a result in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metaprune_cli.console.text import line
from metaprune_cli.pruning.cost import speedup

ROWS, NAME = 12, 40
"""How many layers are shown, and how much of a name."""


def listing(layers: Sequence[tuple[str, int, int]], totals: Mapping[str, tuple[int, int]]) -> str:
    """A row for each of the layers that lose most, in their order, and one for each total.

    Args:
        layers: name, how many there were, how many there are.
        totals: the same for the whole model, by name.
    """
    lost = sorted((after / before, place) for place, (_, before, after) in enumerate(layers) if after < before)
    shown = [layers[place] for place in sorted(place for _, place in lost[:ROWS])]
    rows = [(line(name, NAME), before, after, f"−{1 - after / before:.0%}") for name, before, after in shown]
    rows += [(name, *both, f"{speedup(*both):.2f}×") for name, both in totals.items()]
    cells = [(name, f"{before:,}", f"{after:,}", change) for name, before, after, change in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [_aligned(row, widths) for row in cells]
    rest = [f"{len(lost) - len(shown)} more that lose less"] if len(lost) > len(shown) else []
    rest += [f"{len(layers) - len(lost)} stay whole"] if len(layers) > len(lost) else []
    more = [f"  … {', '.join(rest)}"] if rest else []
    return "\n".join([*texts[: len(shown)], *more, *texts[len(shown) :]])


def _aligned(row: tuple[str, str, str, str], widths: Sequence[int]) -> str:
    name, before, after, change = row
    return f"  {name:<{widths[0]}}  {before:>{widths[1]}} → {after:>{widths[2]}}  {change:>{widths[3]}}"
