"""How wide every layer (family) is before and after pruning, from the plans that pruned models carry."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from metaprune_cli.console.figures import share, times
from metaprune_cli.console.markup import element
from metaprune_cli.graph.units import titled
from metaprune_cli.reports.plots import arm_class
from metaprune_cli.workflows.arms import Arm
from metaprune_cli.workflows.lineage import descent
from metaprune_cli.workflows.loading import Opened

WIDTH = 320
NAME, BAR, GAP = 17, 12, 10  # heights: of a family's name, of a bar with the space below it, between families
FIGURE = 74  # width of the figures at the end of a bar
LONGEST = 44  # letters of a name

Shape = tuple[tuple[str, int], ...]
"""The families of a network, by name, and how many units each has before pruning."""


@dataclass(frozen=True)
class Family:
    """One family of one pruned model; ``locked`` says why none of it could go."""

    name: str
    before: int
    after: int
    locked: str | None
    kind: str = "channels"

    @property
    def title(self) -> str:
        """Its name, apart from that of another family of the same layer."""
        return titled(self.name, self.kind)


@dataclass(frozen=True)
class Widths:
    """The families of one pruned model, and what it is."""

    architecture: str
    origin: str
    arm: Arm
    requested: float
    families: tuple[Family, ...]

    @property
    def shape(self) -> Shape:
        """What has to be equal for two models to be shown together."""
        return tuple((family.title, family.before) for family in self.families)


def widths_of(opened: Opened, arm: Arm) -> Widths | None:
    """What the plan of a model says, whose arm is called ``arm`` in this evaluation; None for one without a plan."""
    found = descent(opened.lineage, opened.path)
    families: Sequence[Mapping[str, Any]] = (opened.pruning or {}).get("families") or ()
    if not families or found.requested is None:  # what was zeroed has a plan without families
        return None
    kept = tuple(Family(f["name"], f["before"], f["after"], f["locked"], f.get("kind", "channels")) for f in families)
    return Widths(opened.architecture.name, found.origin, arm, found.requested, kept)


@dataclass(frozen=True)
class Network:
    """Models of one network: a card a speed-up with the families' mean widths, and what could not go."""

    title: str
    cards: tuple[tuple[str, Element], ...]
    locked: tuple[Family, ...]


def networks(widths: Sequence[Widths], arms: Sequence[Arm]) -> Iterator[Network]:
    """Every network met."""
    found: dict[tuple[str, Shape], list[Widths]] = defaultdict(list)
    for one in widths:
        found[one.architecture, one.shape].append(one)
    for (architecture, _), some in found.items():
        asked = {speedup: [one for one in some if one.requested == speedup] for speedup in _speedups(some)}
        origins = len({one.origin for one in some})
        yield Network(
            f"{architecture}, {origins} model{'s' if origins > 1 else ''}",
            tuple((f"target {times(speedup)}", _bars(models, arms)) for speedup, models in asked.items()),
            tuple(family for family in some[0].families if family.locked),
        )


def _speedups(some: Sequence[Widths]) -> list[float]:
    return sorted({one.requested for one in some})


def _bars(some: Sequence[Widths], arms: Sequence[Arm]) -> Element:
    """For every family that could lose something, a bar an arm; its length is the share that is left."""
    by_arm = {arm: found for arm in arms if (found := [one for one in some if one.arm == arm])}
    each = NAME + BAR * len(by_arm) + GAP
    free = [place for place, family in enumerate(some[0].families) if family.locked is None]
    parts: list[object] = []
    for row, place in enumerate(free):
        family, top = some[0].families[place], row * each
        parts.append(element("text", _short(family.title), x=0, y=top + 11, class_="name"))
        for number, (arm, models) in enumerate(by_arm.items()):
            after = statistics.fmean({one.origin: one.families[place].after for one in models}.values())
            parts.append(_bar(family, after, top + NAME + BAR * number, arm, arm_class(arms, arm)))
    height = len(free) * each
    return element("svg", parts, viewBox=f"0 0 {WIDTH} {height}", role="img", class_="bars")


def _bar(family: Family, after: float, top: int, arm: Arm, name: str) -> Element:
    whole, left = WIDTH - FIGURE, after / family.before
    title = f"{family.title}, {arm}: {round(after, 2):g} of {family.before} are left ({share(left)})"
    return element(
        "g",
        element("title", title),
        element("rect", x=0, y=top, width=whole, height=BAR - 3, class_="whole"),
        element("rect", x=0, y=top, width=round(whole * left, 1), height=BAR - 3, class_="left"),
        element("text", f"{round(after, 1):g} / {family.before}", x=whole + 6, y=top + BAR - 4, class_="tiny"),
        class_=name,
    )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
