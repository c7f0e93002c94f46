"""What ``bench`` measured as a picture: a bar for every model at every batch size, with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metaprune_cli.console.figures import millis, times
from metaprune_cli.console.text import plotted
from metaprune_cli.reports.png import picture
from metaprune_cli.workflows.bench.rig import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, ROW_INCHES = 8.0, 0.34
FARTHEST = 2.0
"""Times the longest bar: how far a spread is shown that a busy machine has made."""
ROOM = 1.7  # times that, for what is said behind
COLOURS = {"as promised": "#009E73", "lags": "#D55E00", "unclear": "#E69F00"}
"""By verdict; what there is no claim about is grey, the whole model among them."""
NO_CLAIM = "#8a949e"


def draw(rows: Sequence[Row], path: Path) -> None:
    """A PNG: models downwards, a panel for each batch size, the time of a pass across."""
    batches = list(dict.fromkeys(row.batch for row in rows))
    with picture(path, WIDTH, 0.8 * len(batches) + ROW_INCHES * len(rows)) as figure:
        panels = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
        for axes, batch in zip(panels, batches, strict=True):
            _draw_batch(axes, [row for row in rows if row.batch == batch][::-1])  # the first one at the top
            axes.set_title(f"batch {batch}", fontsize=9, loc="left")
        panels[-1].set_xlabel("ms a forward pass: median, and from the fastest tenth to the slowest")


def _draw_batch(axes: Axes, some: Sequence[Row]) -> None:
    """A bar for every model, and what it comes to behind it."""
    middle = [row.latency_ms for row in some]
    end = min(max(row.latency_p90_ms for row in some), FARTHEST * max(middle))
    spread = [
        [row.latency_ms - row.latency_p10_ms for row in some],
        [max(min(row.latency_p90_ms, end) - row.latency_ms, 0.0) for row in some],
    ]
    colours = [COLOURS.get(row.verdict, NO_CLAIM) for row in some]
    axes.barh(range(len(some)), middle, xerr=spread, color=colours, ecolor="#555555", height=0.7)
    axes.set_yticks(range(len(some)), [plotted(row.name) for row in some], fontsize=8)
    for place, row in enumerate(some):
        axes.annotate(
            plotted(_said(row)),
            (min(row.latency_p90_ms, end), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, ROOM * end)
    axes.spines[["top", "right"]].set_visible(False)


def _said(row: Row) -> str:
    """``0.66 ms, 1.30x faster (MACs 4.07x): lags``, of what it is compared with the time alone."""
    time = f"{millis(row.latency_ms)} ms"
    if row.name == row.base:
        return time
    return f"{time}, {times(row.latency_speedup)} faster (MACs {times(row.macs_speedup)}): {row.verdict}"
