"""The evaluation as one HTML file that needs nothing else: no network, no script; its figures are report.md's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from metaprune_cli.console.figures import plain
from metaprune_cli.console.markup import element, page
from metaprune_cli.reports.picture import step_title
from metaprune_cli.reports.plots import colours, rows_chart, step_chart, swatch
from metaprune_cli.reports.report import (
    EXPLANATION,
    against,
    models_table,
    summary_tables,
    unequal_lines,
    unpruned_lines,
)
from metaprune_cli.reports.rows import Row
from metaprune_cli.reports.summary import Summary
from metaprune_cli.reports.widths import Widths, sections
from metaprune_cli.workflows.arms import Arm, explained
from metaprune_cli.workflows.loading import Lineage
from metaprune_cli.workflows.paths import Rendering

PAGE = Rendering("report", ".html", '<meta name="generator" content="metaprune eval">')
STYLE = Path(__file__).with_name("page.css")
NOTHING_FROM_OUTSIDE = "default-src 'none'; style-src 'unsafe-inline'"
DIGEST = 40  # letters from which on a value is a digest, of which the first dozen are enough


@dataclass(frozen=True)
class Contents:
    """What a page shows.

    Attributes:
        rows: every evaluated model, and the points of the curves.
        summary: the same, grouped.
        setting: the conditions in words, by label.
        lineages: how every model came to be, by its name in the rows.
        widths: of every model that carries the plan it was pruned by.
        command: the command line.
        versions: of what did the work.
    """

    rows: Sequence[Row]
    summary: Summary
    setting: Mapping[str, str]
    lineages: Mapping[str, Lineage]
    widths: Sequence[Widths]
    command: str
    versions: Mapping[str, str]

    @property
    def arms(self) -> list[Arm]:
        """Every arm there is, in the order that colours them: those of the curves first."""
        return list(dict.fromkeys([*self.summary.arms, *sorted({row.arm for row in self.rows})]))


def html(contents: Contents) -> str:
    """The page."""
    parts = (
        *(_heading(contents), _curves(contents), _summary(contents.summary), _widths(contents)),
        *(_models(contents.rows), _lineages(contents.lineages)),
    )
    style = STYLE.read_text(encoding="utf-8") + colours(contents.arms)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content="metaprune eval"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=NOTHING_FROM_OUTSIDE),
        element("title", "metaprune: evaluation"),
        element("style", style),
    )
    return page(element("html", head, element("body", element("main", parts)), lang="en"))


def _heading(contents: Contents) -> Element:
    models = len(contents.lineages)
    versions = ", ".join(f"{name} {version}" for name, version in contents.versions.items())
    facts = {"Models": f"{models} measured", **contents.setting, "Versions": versions}
    listed = [(element("dt", name), element("dd", text)) for name, text in facts.items()]
    command = element("pre", element("code", contents.command))
    return element("header", element("h1", "Evaluation"), command, element("dl", listed))


def _curves(contents: Contents) -> Element:
    summary, arms = contents.summary, contents.arms
    if not summary.steps:
        return element(
            "section", element("h2", against(contents.rows)), _cards([("", rows_chart(contents.rows, arms))])
        )
    charts = [(step_title(step), step_chart(summary, step)) for step in summary.steps[::-1]]
    note = "Lines: mean over the models; bands: ± its standard error; arrows: means below the axis."
    return element(
        "section",
        element("h2", against(contents.rows)),
        [element("p", line) for line in unpruned_lines(summary)],
        _legend(summary.arms, arms),
        _cards(charts),
        element("p", note, class_="note"),
    )


def _legend(shown: Sequence[Arm], arms: Sequence[Arm]) -> Element:
    items = [element("li", swatch(arms, arm), element("b", arm), f" {explained(arm)}") for arm in shown]
    return element("ul", items, class_="legend")


def _cards(charts: Sequence[tuple[str, Element]]) -> Element:
    figures = [element("figure", element("figcaption", title) if title else None, chart) for title, chart in charts]
    return element("div", figures, class_="cards wide")


def _summary(summary: Summary) -> Element | None:
    if not summary.steps:
        return None
    tables = [table.html() for table in summary_tables(summary)]
    notes = [element("p", line, class_="note") for line in (EXPLANATION, *unequal_lines(summary))]
    return element("section", element("h2", "Arms compared"), tables, notes)


def _widths(contents: Contents) -> Element | None:
    if not contents.widths:
        return None
    note = (
        "What is left of every family, the units that people call a layer's channels or an attention's heads; the mean "
        "over the models. Coupled layers are one family."
    )
    pruned = [arm for arm in contents.arms if any(one.arm == arm for one in contents.widths)]
    return element(
        "section",
        element("h2", "Widths before and after pruning"),
        element("p", note, class_="note"),
        _legend(pruned, contents.arms),
        list(sections(contents.widths, contents.arms)),
    )


def _models(rows: Sequence[Row]) -> Element:
    table = models_table(rows)
    return element("section", element("h2", table.title), replace(table, title="").html())


def _lineages(lineages: Mapping[str, Lineage]) -> Element:
    made = [
        element("li", element("b", name), element("ol", list(_steps(lineage)), class_="steps"))
        for name, lineage in lineages.items()
    ]
    return element("section", element("h2", "How every model was made"), element("ul", made, class_="lineages"))


def _steps(lineage: Lineage) -> Iterator[Element]:
    if not lineage:
        yield element("li", "its file does not say")
    for step in lineage:
        figures = ", ".join(_figures(step))
        yield element("li", element("b", step["command"]), f" {figures}" if figures else None)


def _figures(step: Mapping[str, Any]) -> Iterator[str]:
    """What a step says of itself, what it read first; what it did not do goes without saying."""
    for name, value in sorted(step.items(), key=lambda item: item[0] != "input"):
        if name == "command" or value is None or value is False:
            continue
        text = plain(value)
        short = text if len(text) < DIGEST or " " in text else f"{text[:12]}…"
        yield name if value is True else short if name == "input" else f"{name} {short}"
