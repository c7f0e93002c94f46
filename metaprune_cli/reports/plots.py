"""Curves as SVG inside a page: the same figures as ``picture``, with their numbers in the tooltips."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from metaprune_cli.console.figures import times
from metaprune_cli.console.markup import element
from metaprune_cli.reports.picture import arm_styles, limits, step_title
from metaprune_cli.reports.rows import Group, Row
from metaprune_cli.reports.summary import Summary
from metaprune_cli.tasks import Metric
from metaprune_cli.workflows.arms import Arm
from metaprune_cli.workflows.lineage import Step

DARK = {
    "#D55E00": "#F08A3C",
    "#009E73": "#2FC79A",
    "#0072B2": "#5AB0F0",
    "#CC79A7": "#E39AC2",
    "#000000": "#E6E8EB",
    "#999933": "#C4C45A",
    "#882255": "#E0709F",
    "#6A3D9A": "#B08FE0",
    "#B15928": "#D98A5B",
}
"""On a dark ground, in place of the picture's colours; the others are light enough."""
WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 44
TICKS = 6
ROOM = 0.04  # of the axis, left and right of the speed-ups


@dataclass(frozen=True)
class Point:
    """A mean, its standard error (0: unknown), and what its tooltip says."""

    x: float
    y: float
    error: float
    title: str


@dataclass(frozen=True)
class Axes:
    """From figures to pixels: the ranges of both axes."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies."""
        (x0, x1), (y0, y1) = self.x, self.y
        right = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        down = TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return round(right, 1), round(down, 1)


def colours(arms: Sequence[Arm]) -> list[tuple[str, str, str]]:
    """The CSS class of every arm, its colour on light ground, and on dark."""
    found = [(arm_class(arms, arm), colour) for arm, (colour, _) in arm_styles(arms).items()]
    return [(name, colour, DARK.get(colour, colour)) for name, colour in found]


def arm_class(arms: Sequence[Arm], arm: Arm) -> str:
    """The CSS class of an arm: names of arms have spaces in them."""
    return f"arm-{list(arms).index(arm)}"


def swatch(arms: Sequence[Arm], arm: Arm) -> Element:
    """A small line with the arm's marker, for a legend."""
    line = element("line", x1=1, y1=7, x2=27, y2=7, class_="line")
    inside = [line, _marker(arm_styles(arms)[arm][1], 14, 7)]
    return element("svg", inside, viewBox="0 0 28 14", class_=f"swatch {arm_class(arms, arm)}", aria_hidden="true")


def step_chart(summary: Summary, step: Step) -> Element:
    """The mean headline of every arm over the speed-up, bands of its standard error, the unpruned mean dashed."""
    base = summary.group("unpruned", None, "plain")
    groups = [group for group in summary.groups if group.step == step]
    points = {arm: [_point(group) for group in groups if group.arm == arm] for arm in summary.arms}
    axes = Axes(_across(points), limits(groups, base))
    metric = summary.metric
    level = [] if base is None else _level(axes, base.headline.mean, metric)
    drawn = [_arm(axes, some, summary.arms, arm) for arm, some in points.items() if some]
    title = f"{metric.label} against speed-up: {step_title(step)}"
    return _figure(axes, [*level, drawn], title, "speed-up achieved (MACs)", metric)


def rows_chart(rows: Sequence[Row], arms: Sequence[Arm]) -> Element:
    """Every model as a point: where none was pruned to a known speed-up there are no curves."""
    points = {arm: [_single(row) for row in rows if row.arm == arm] for arm in arms}
    metric, values = rows[0].score.metric, [row.headline for row in rows]
    margin = max(0.1 * (max(values) - min(values)), metric.resolution / 2)
    axes = Axes(_across(points), (min(values) - margin, max(values) + margin))
    drawn = [_dot(axes, point, arms, arm) for arm, some in points.items() for point in some]
    return _figure(axes, drawn, f"{metric.label} against speed-up: every model", "speed-up (MACs)", metric)


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round numbers in a range, as many as there may be."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + number) * step, 10) for number in range(count)]


def _point(group: Group) -> Point:
    found, metric, achieved = group.headline, group.metrics[0], group.spread("speedup").mean
    about = "" if found.standard_error is None else f" ± {metric.write(found.standard_error)}"
    asked = "" if group.requested is None else f", asked for {times(group.requested)}"
    models = f"{found.count} model{'s' if found.count > 1 else ''}"
    figure = f"{metric.write(found.mean)}{about} {metric.unit}".rstrip()
    return Point(
        achieved,
        found.mean,
        found.standard_error or 0.0,
        f"{group.arm}: {figure} at {times(achieved)}{asked} ({models})",
    )


def _single(row: Row) -> Point:
    figure = row.score.metric.written(row.headline)
    return Point(row.speedup, row.headline, 0.0, f"{row.name}: {figure} at {times(row.speedup)}")


def _across(points: Mapping[Arm, Sequence[Point]]) -> tuple[float, float]:
    every = [point.x for some in points.values() for point in some]
    room = ROOM * (max(every) - min(every)) or 0.5
    return min(every) - room, max(every) + room


def _arm(axes: Axes, points: Sequence[Point], arms: Sequence[Arm], arm: Arm) -> Element:
    upper = [axes.at(point.x, point.y + point.error) for point in points]
    lower = [axes.at(point.x, point.y - point.error) for point in reversed(points)]
    band = element("polygon", points=_path([*upper, *lower]), class_="band")
    line = element("polyline", points=_path([axes.at(point.x, point.y) for point in points]), class_="line")
    dots = [_dot(axes, point, arms, arm) for point in points]
    return element("g", _clipped(band, line), dots, class_=arm_class(arms, arm))


def _dot(axes: Axes, point: Point, arms: Sequence[Arm], arm: Arm) -> Element:
    """A marker with a tooltip; beyond the axis its figure and an arrow."""
    low, high = axes.y
    x, y = axes.at(point.x, min(max(point.y, low), high))
    mark = _marker(arm_styles(arms)[arm][1], x, y)
    if not low <= point.y <= high:
        arrow, down = ("\N{DOWNWARDS ARROW}", -3) if point.y < low else ("\N{UPWARDS ARROW}", 10)
        mark = element("text", f"{point.y:.0f}{arrow}", x=x, y=y + down, text_anchor="middle", class_="below")
    hit = element("circle", cx=x, cy=y, r=11, class_="hit")
    return element("g", element("title", point.title), mark, hit, class_=f"dot {arm_class(arms, arm)}")


def _clipped(*inside: Element) -> Element:
    """Cut off outside the axes: an SVG in an SVG is, and needs no id as a clip path does."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return element("svg", inside, x=LEFT, y=TOP, width=width, height=height, viewBox=f"{LEFT} {TOP} {width} {height}")


def _marker(shape: str, x: float, y: float) -> Element:
    if shape == "o":
        return element("circle", cx=x, cy=y, r=4, class_="mark")
    corners = {
        "s": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "^": ((0, -5), (4.5, 4), (-4.5, 4)),
        "v": ((0, 5), (4.5, -4), (-4.5, -4)),
        "D": ((0, -5), (5, 0), (0, 5), (-5, 0)),
    }[shape]
    return element("polygon", points=_path([(x + right, y + down) for right, down in corners]), class_="mark")


def _level(axes: Axes, mean: float, metric: Metric) -> list[Element]:
    (_, y), right = axes.at(axes.x[0], mean), WIDTH - RIGHT
    line = element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="level")
    name = element("text", "unpruned", x=right, y=y - 4, text_anchor="end", class_="small")
    return [element("g", element("title", f"unpruned: {metric.written(mean)}"), line, name)]


def _figure(axes: Axes, inside: Sequence[object], title: str, x_label: str, metric: Metric) -> Element:
    middle = (HEIGHT - BOTTOM + TOP) / 2
    y_label = ", ".join(filter(None, (metric.name, metric.unit)))
    return element(
        "svg",
        element("title", title),
        list(_grid(axes)),
        inside,
        element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle"),
        element("text", y_label, x=12, y=middle, text_anchor="middle", transform=f"rotate(-90 12 {middle:g})"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )


def _grid(axes: Axes) -> Iterator[Element]:
    bottom = HEIGHT - BOTTOM
    for value in ticks(*axes.y):
        _, y = axes.at(axes.x[0], value)
        yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")
        yield element("text", f"{value:g}", x=LEFT - 6, y=y + 4, text_anchor="end", class_="small")
    for value in ticks(*axes.x):
        x, _ = axes.at(value, axes.y[0])
        yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="tick")
        yield element("text", f"{value:g}×", x=x, y=bottom + 17, text_anchor="middle", class_="small")
    yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="tick")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
