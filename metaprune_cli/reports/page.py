"""The evaluation as one HTML file that needs nothing else: no network, no script; its figures are report.md's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from metaprune_cli.console.figures import plain
from metaprune_cli.console.markup import html_of, markup_text
from metaprune_cli.console.templates import render
from metaprune_cli.reports.gallery import Wall
from metaprune_cli.reports.picture import step_title
from metaprune_cli.reports.plots import colours, rows_chart, step_chart, swatch
from metaprune_cli.reports.png import data_uri
from metaprune_cli.reports.report import (
    SPREAD,
    against,
    models_table,
    unequal_lines,
    unpruned_lines,
)
from metaprune_cli.reports.rows import Row
from metaprune_cli.reports.summary import Summary
from metaprune_cli.reports.verdicts import page_tables, verdicts
from metaprune_cli.reports.widths import Widths, networks
from metaprune_cli.workflows.arms import Arm, explained
from metaprune_cli.workflows.loading import Lineage
from metaprune_cli.workflows.paths import Rendering

PAGE = Rendering("report", ".html", '<meta name="generator" content="metaprune eval">')
TEMPLATE = Path(__file__).with_name("templates") / "page.html.jinja"
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
        gallery: pictures before and after, of tasks that have some.
    """

    rows: Sequence[Row]
    summary: Summary
    setting: Mapping[str, str]
    lineages: Mapping[str, Lineage]
    widths: Sequence[Widths]
    command: str
    versions: Mapping[str, str]
    gallery: Sequence[Wall] = ()

    @property
    def arms(self) -> list[Arm]:
        """Every arm there is, in the order that colours them: those of the curves first."""
        return list(dict.fromkeys([*self.summary.arms, *sorted({row.arm for row in self.rows})]))


def html(contents: Contents) -> str:
    """The page."""
    summary, arms, models = contents.summary, contents.arms, models_table(contents.rows)
    steps = summary.steps[::-1]  # in the order they are done
    charts = [(step_title(step), step_chart(summary, step)) for step in steps]
    versions = ", ".join(f"{name} {version}" for name, version in contents.versions.items())
    facts = {"Models": f"{len(contents.lineages)} measured", **contents.setting, "Versions": versions}
    return render(
        TEMPLATE,
        markup_text,
        {"tree": html_of, "picture": data_uri},
        contents=contents,
        summary=summary,
        facts=facts,
        colours=colours(arms),
        swatch=partial(swatch, arms),
        explained=explained,
        heading=against(contents.rows),
        charts=charts or [("", rows_chart(contents.rows, arms))],
        unpruned_lines=unpruned_lines,
        tables=page_tables(summary),
        verdicts=verdicts(summary),
        explanation=SPREAD,
        spreads=any(len(group.rows) > 1 for group in summary.groups),
        unequal_lines=unequal_lines,
        pruned_arms=[arm for arm in arms if any(one.arm == arm for one in contents.widths)],
        networks=list(networks(contents.widths, arms)),
        models_title=models.title,
        models=replace(models, title=""),
        step_figures=_figures,
    )


def _figures(step: Mapping[str, Any]) -> str:
    """What a step says of itself, what it read first; what it did not do goes without saying."""
    return ", ".join(_said(step))


def _said(step: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(step.items(), key=lambda item: item[0] != "input"):
        if name == "command" or value is None or value is False:
            continue
        text = plain(value)
        short = text if len(text) < DIGEST or " " in text else f"{text[:12]}…"
        yield name if value is True else short if name == "input" else f"{name} {short}"
