"""What a search tried: a table of every candidate, and a picture of all of them over what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprune_cli.console.sheet import csv_text
from metaprune_cli.console.text import plotted
from metaprune_cli.pruning.width_search import Candidate
from metaprune_cli.reports.png import PICTURE, picture
from metaprune_cli.workflows.paths import Replaceable, check_targets, replace_file
from metaprune_cli.workflows.rank_check import RankCheck
from metaprune_cli.workflows.searching import BASELINES, Searched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIRST_COLUMNS = ("target", "iteration", "how", "cost", "fitness", "verified", "metric", "chosen")
COLOURS = {"random": "#bbbbbb", "mutation": "#4477aa", "crossover": "#66ccee"}


def check_places(table: Path, drawing: Path) -> None:
    """Make sure, before anything is searched, that both can be written and destroy nothing.

    Raises:
        InputError: they cannot, or would.
    """
    begins = ",".join(FIRST_COLUMNS).encode()
    check_targets([table], Replaceable("a table of an earlier search", lambda file: _begins(file, begins)))
    check_targets([drawing], PICTURE)


def write(found: Sequence[Searched], table: Path, drawing: Path) -> None:
    """Write both, for all targets of one search."""
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = list(records(found))
    names = [name for name in rows[0] if name not in FIRST_COLUMNS]
    text = csv_text(rows, [*FIRST_COLUMNS, *names])
    replace_file(table, partial(Path.write_text, data=text, encoding="utf-8"))
    replace_file(drawing, partial(draw, {table.name: found}))


def write_rank_check(checked: RankCheck, table: Path) -> None:
    """A row for each candidate: what every fitness said of it, and what it reached after training."""
    rows = [
        {name: _finite(values[place]) for name, values in checked.fitness.items()} | {"trained": headline}
        for place, headline in enumerate(checked.headlines)
    ]
    text = csv_text(rows, [*checked.fitness, "trained"])
    replace_file(table, partial(Path.write_text, data=text, encoding="utf-8"))


def records(found: Sequence[Searched]) -> Iterator[dict[str, Any]]:
    """A row for each candidate in the order of the search, and one for each baseline that is on no grid.

    ``verified`` and ``metric`` are of the images that had no say, where a candidate was judged by them; the last
    columns say how many units stay of each family.
    """
    several = len({id(one.history) for one in found}) < len(found)  # one search for all targets
    for place, one in enumerate(found):
        again = {leader.candidate.genes: leader for leader in one.leaders if leader.candidate}
        shown = [c for c in one.history.candidates if not several or c.genes in again or not place]
        for candidate in shown:
            leader = again.get(candidate.genes)
            yield {
                "target": one.goal.tag,
                "iteration": candidate.iteration,
                "how": candidate.how,
                "cost": candidate.cost,
                "fitness": _finite(candidate.fitness),
                "verified": leader and _finite(leader.verified.fitness),
                "metric": leader and _finite(leader.verified.headline),
                "chosen": "yes" if leader is one.chosen else "",
                **one.widths(one.place.kept(candidate.genes)[0]),
            }
        for leader in one.leaders:
            if leader.candidate is None:
                yield {
                    "target": one.goal.tag,
                    "how": leader.how,
                    "cost": one.place.measure(leader.kept[0]),
                    "verified": _finite(leader.verified.fitness),
                    "metric": _finite(leader.verified.headline),
                    "chosen": "yes" if leader is one.chosen else "",
                    **one.widths(leader.kept[0]),
                }


def draw(searches: Mapping[str, Sequence[Searched]], path: Path) -> None:
    """A PNG, a row for each search: left the candidates, the front and what was chosen; right the iterations."""
    with picture(path, 10, 4.2 * len(searches)) as figure:
        panels = figure.subplots(len(searches), 2, squeeze=False)
        for (left, right), (name, found) in zip(panels, searches.items(), strict=True):
            _draw_search(left, right, found)
            if len(searches) > 1:
                left.set_title(plotted(name), fontsize=9, loc="left")


def _draw_search(left: Axes, right: Axes, found: Sequence[Searched]) -> None:
    drawn: set[int] = set()
    for one in found:
        if id(one.history) not in drawn:
            _draw_candidates(left, one, first=not drawn)
            _draw_iterations(right, one, label=one.goal.tag)
            drawn.add(id(one.history))
        for leader in one.leaders:
            if leader.candidate and leader.how in BASELINES:
                left.plot(leader.candidate.cost, leader.candidate.fitness, "ks" if leader.how == "plain" else "k^")
                left.annotate(leader.how, (leader.candidate.cost, leader.candidate.fitness), fontsize=7)
        if one.chosen.candidate:
            left.plot(one.chosen.candidate.cost, one.chosen.candidate.fitness, "o", ms=10, mfc="none", mec="red")
    left.set_xlabel(plotted(found[0].goal.quantity))
    left.set_ylabel("fitness (lower is better)")
    left.legend(fontsize=7)
    right.set_xlabel("iteration")
    right.legend(fontsize=7)


def _draw_candidates(axes: Axes, one: Searched, *, first: bool) -> None:
    for how, colour in COLOURS.items():
        some = _sound(c for c in one.history.candidates if c.how == how)
        axes.plot(
            [c.cost for c in some],
            [c.fitness for c in some],
            ".",
            color=colour,
            label=how if first else None,
        )
    front = one.history.front()
    axes.plot([c.cost for c in front], [c.fitness for c in front], "-", color="#ee6677", lw=1)


def _draw_iterations(axes: Axes, one: Searched, label: str) -> None:
    by_iteration: dict[int, list[float]] = {}
    for candidate in _sound(one.history.candidates):
        by_iteration.setdefault(candidate.iteration, []).append(candidate.fitness)
    numbers = sorted(by_iteration)
    (line,) = axes.plot(numbers, [sum(by_iteration[n]) / len(by_iteration[n]) for n in numbers], label=f"{label}: mean")
    lowest = [min(min(by_iteration[n]) for n in numbers[: place + 1]) for place in range(len(numbers))]
    axes.plot(numbers, lowest, "--", color=line.get_color(), label=f"{label}: best so far")


def _sound(candidates: Iterable[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if math.isfinite(candidate.fitness)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _begins(file: Path, mark: bytes) -> bool:
    with file.open("rb") as content:
        return content.read(len(mark)) == mark
