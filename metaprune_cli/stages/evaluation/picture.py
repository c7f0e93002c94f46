"""The accuracy–speed-up picture: one panel per step after pruning, both arms, the unpruned models as a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metaprune_cli.stages.evaluation.summary import ARMS, Arm, Group, Row, Step, Summary

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by colour-blind readers; the markers differ for print.
COLOURS: dict[Arm, str] = {"plain": "#D55E00", "metanet": "#0072B2"}
MARKERS: dict[Arm, str] = {"plain": "s", "metanet": "o"}
LABELS: dict[Arm, str] = {"plain": "without metanetwork", "metanet": "with metanetwork"}
TITLES: dict[Step, str] = {
    "pruned": "Pruned only",
    "recalibrated": "Pruned, BatchNorm recalibrated",
    "finetuned": "Pruned and finetuned",
}
PANEL_INCHES = (5.2, 4.4)


def draw(rows: Sequence[Row], summary: Summary, path: Path) -> None:
    """Write the picture to ``path``, a PNG.

    Without any pruned model of known speed-up there is no curve: then every model is a labelled point.
    """
    # The object interface: pyplot would choose a backend and keep state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = summary.steps[::-1]  # in the order they are done
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * max(len(steps), 1), height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, max(len(steps), 1), squeeze=False)[0])
    for axes, step in zip(panels, steps, strict=False):
        _draw_step(axes, summary, step)
    if steps:
        title = "lines: mean over the models; bands: from the worst to the best of them"
        figure.legend(*_legend(panels), loc="outside lower center", ncols=3, frameon=False, title=title)
    else:
        _draw_points(panels[0], rows)
    panels[0].set_ylabel("top-1 on the test images, %")
    figure.savefig(path, format="png", metadata={"Software": None})


def _legend(panels: Sequence[Axes]) -> tuple[list[Artist], list[str]]:
    """Each label once, wherever it is met first: one panel may lack an arm."""
    found: dict[str, Artist] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    return list(found.values()), list(found)


def _draw_step(axes: Axes, summary: Summary, step: Step) -> None:
    """Mean of each arm, the band from the worst to the best model, and the unpruned mean."""
    base = summary.group("unpruned", None, "plain")
    if base is not None:
        axes.axhline(base.top1.mean, color="#555555", linestyle="--", linewidth=1.2, label="unpruned")
    for arm in ARMS:
        groups = [summary.group(step, requested, arm) for requested in summary.speedups(step)]
        present = [group for group in groups if group is not None]
        if present:
            _draw_arm(axes, arm, present)
    axes.set_title(TITLES[step])
    axes.set_xlabel("speed-up achieved (MACs)")
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_arm(axes: Axes, arm: Arm, groups: Sequence[Group]) -> None:
    speedups = [group.spread("speedup").mean for group in groups]
    spreads = [group.top1 for group in groups]
    colour = COLOURS[arm]
    axes.fill_between(
        speedups, [s.low for s in spreads], [s.high for s in spreads], color=colour, alpha=0.15, linewidth=0
    )
    axes.plot(speedups, [s.mean for s in spreads], color=colour, marker=MARKERS[arm], linewidth=2, label=LABELS[arm])


def _draw_points(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        axes.scatter(row.speedup, row.top1, color=COLOURS[row.arm], marker=MARKERS[row.arm])
        axes.annotate(row.name, (row.speedup, row.top1), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel("speed-up (MACs)")
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
