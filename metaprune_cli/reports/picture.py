"""The accuracy–speed-up picture: one panel per step after pruning, every arm, the unpruned models as a line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metaprune_cli.console.text import plotted
from metaprune_cli.methods.registry import methods
from metaprune_cli.reports.png import picture
from metaprune_cli.reports.rows import Group, Row
from metaprune_cli.reports.summary import Summary
from metaprune_cli.workflows.arms import Arm, explained, methods_of
from metaprune_cli.workflows.lineage import Step

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by colour-blind readers; the markers differ for print.
STYLES = {"plain": ("#D55E00", "s"), "uniform": ("#009E73", "^")}
METHODS_COLOURS = ("#0072B2", "#6A3D9A", "#B15928")
"""Of the methods, in the order of the registry."""
MORE_COLOURS = ("#E69F00", "#CC79A7", "#56B4E9", "#000000", "#999933", "#882255", "#44AA99")
TITLES: dict[Step, str] = {
    "pruned": "As pruned, not finetuned",
    "recalibrated": "Pruned, BatchNorm recalibrated",
    "finetuned": "Pruned and finetuned",
}
Style = tuple[str, str]
PANEL_INCHES = (5.2, 4.4)
FARTHEST = 2.5  # times the range of the good arms: how far an axis goes down for a bad one
MARGIN = 0.1  # of the axis, above and below


def draw(rows: Sequence[Row], summary: Summary, path: Path) -> None:
    """Write the picture to ``path``, a PNG.

    Without any pruned model of known speed-up there is no curve: then every model is a labelled point.
    """
    steps = summary.steps[::-1]  # in the order they are done
    width, height = PANEL_INCHES
    with picture(path, width * max(len(steps), 1), height) as figure:
        panels = list(figure.subplots(1, max(len(steps), 1), squeeze=False)[0])
        for axes, step in zip(panels, steps, strict=False):
            _draw_step(axes, summary, step)
        if steps:
            title = "lines: mean over models; bands: standard error; arrows: means below the axis"
            columns = 2 if len(steps) > 1 else 1
            figure.legend(*_legend(panels), loc="outside lower center", ncols=columns, frameon=False, title=title)
        else:
            _draw_points(panels[0], rows)
        metric = rows[0].score.metric
        label = ", ".join(filter(None, (f"{metric.name} on the test images", metric.unit)))
        panels[0].set_ylabel(plotted(label))


def arm_styles(arms: Sequence[Arm]) -> dict[Arm, Style]:
    """A colour and a marker for each arm; those of the pipeline always have the same."""
    more = itertools.cycle(MORE_COLOURS)
    own = {method.name: (colour, "o") for method, colour in zip(methods(), METHODS_COLOURS, strict=False)}
    known = STYLES | own
    return {arm: known.get(arm) or (next(more), "D" if methods_of(arm) else "v") for arm in arms}


def step_title(step: Step) -> str:
    """What stands above a step's panel."""
    name, _, epochs = step.partition("-")
    return TITLES[name] + (f", {epochs} epochs" if epochs else "")


def _legend(panels: Sequence[Axes]) -> tuple[list[Artist], list[str]]:
    """Each label once, wherever it is met first: one panel may lack an arm."""
    found: dict[str, Artist] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    return list(found.values()), list(found)


def _draw_step(axes: Axes, summary: Summary, step: Step) -> None:
    """Mean of each arm, a band of its standard error, and the unpruned mean."""
    base = summary.group("unpruned", None, "plain")
    if base is not None:
        axes.axhline(base.headline.mean, color="#555555", linestyle="--", linewidth=1.2, label="unpruned")
    groups = [group for group in summary.groups if group.step == step]
    shown = limits(groups, base)
    axes.set_ylim(shown)
    styles = arm_styles(summary.arms)
    for arm in summary.arms:
        present = [group for group in groups if group.arm == arm]
        if present:
            _draw_arm(axes, arm, present, shown, styles[arm])
    axes.set_title(step_title(step))
    axes.set_xlabel("speed-up achieved (MACs)")
    _dress(axes)


def limits(groups: Sequence[Group], base: Group | None = None) -> tuple[float, float]:
    """What the headline's axis shows: every mean, but for those so much worse that the others would look alike.

    The second-best arm at each speed-up is always in view; worse ones where that does not make the axis more than
    ``FARTHEST`` times as long. It is never shorter than what is worth a picture: that would blow noise up.

    Args:
        groups: of one step.
        base: the unpruned models, in view as well.
    """
    metric = groups[0].metrics[0]
    means: dict[float | None, list[float]] = {}
    for group in groups:
        means.setdefault(group.requested, []).append(metric.gain(0, group.headline.mean))
    every = [mean for some in means.values() for mean in some]
    top = max(every if base is None else [*every, metric.gain(0, base.headline.mean)])
    close = top - min(sorted(some)[-2:][0] for some in means.values())
    far = top - min(every)
    span = max(far if far <= FARTHEST * close else close, metric.resolution)
    worst, best = top - (1 + MARGIN) * span, top + MARGIN * span
    if not metric.higher_is_better:
        return -best, -worst
    return worst, min(best, 100 + MARGIN) if metric.unit == "%" else best


def _draw_arm(axes: Axes, arm: Arm, groups: Sequence[Group], shown: tuple[float, float], style: Style) -> None:
    """The arm's line and band; a mean beyond the axis is named at its edge."""
    speedups = [group.spread("speedup").mean for group in groups]
    spreads = [group.headline for group in groups]
    colour, marker = style
    errors = [s.standard_error or 0.0 for s in spreads]
    lows = [s.mean - error for s, error in zip(spreads, errors, strict=True)]
    highs = [s.mean + error for s, error in zip(spreads, errors, strict=True)]
    axes.fill_between(speedups, lows, highs, color=colour, alpha=0.15, linewidth=0)
    label = plotted(f"{arm}: {explained(arm)}")
    axes.plot(speedups, [s.mean for s in spreads], color=colour, marker=marker, linewidth=2, label=label)
    for speedup, spread in zip(speedups, spreads, strict=True):
        low, high = shown
        if not low <= spread.mean <= high:
            place, side, arrow = (0.01, "bottom", "\N{DOWNWARDS ARROW}")
            if spread.mean > high:
                place, side, arrow = (0.99, "top", "\N{UPWARDS ARROW}")
            text, at_edge = f"{spread.mean:.0f}{arrow}", axes.get_xaxis_transform()
            axes.text(speedup, place, text, transform=at_edge, ha="center", va=side, fontsize=8, color=colour)


def _dress(axes: Axes) -> None:
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_points(axes: Axes, rows: Sequence[Row]) -> None:
    styles = arm_styles(sorted({row.arm for row in rows}))
    for row in rows:
        colour, marker = styles[row.arm]
        axes.scatter(row.speedup, row.headline, color=colour, marker=marker)
        axes.annotate(
            plotted(row.name), (row.speedup, row.headline), xytext=(5, 5), textcoords="offset points", fontsize=8
        )
    axes.set_xlabel("speed-up (MACs)")
    _dress(axes)
