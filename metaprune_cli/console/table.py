"""One table, many renderings: rich text for people, records for ``--json``, Markdown and HTML for reports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any
from xml.etree.ElementTree import Element

from metaprune_cli.console.figures import plain
from metaprune_cli.console.markup import element
from metaprune_cli.console.text import line, lines, markdown

PIPE_WIDTH = 10_000  # a pipe has no edge: nothing may be cut off there


@dataclass(frozen=True)
class Column:
    """One column: the rows' key, its heading, and how a value is written (``None`` is always an empty cell)."""

    key: str
    title: str
    write: Callable[[Any], str] = plain
    right: bool = True

    def cell(self, row: Mapping[str, Any]) -> str:
        """The row's value under this column, as text."""
        value = row.get(self.key)
        return "" if value is None else self.write(value)


def label(key: str, title: str) -> Column:
    """A column of words: left-aligned."""
    return Column(key, title, right=False)


@dataclass(frozen=True)
class Table:
    """Rows of plain values and how each column is written; rows may hold more keys than are shown.

    Attributes:
        title: the line above the table; "" for none.
        columns: what is shown, in order.
        rows: plain values by key, as they go into ``--json``.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]] = field(default=())

    def records(self) -> list[dict[str, Any]]:
        """The rows as they are, for JSON."""
        return [dict(row) for row in self.rows]

    def markdown(self) -> str:
        """A GitHub table, with the title as a bold line above it."""
        lines = [f"**{markdown(self.title)}**", ""] if self.title else []
        lines.append(_markdown_row([column.title for column in self.columns]))
        lines.append(_markdown_row(["--:" if column.right else ":--" for column in self.columns]))
        lines.extend(_markdown_row([column.cell(row) for column in self.columns]) for row in self.rows)
        return "\n".join(lines) + "\n"

    def html(self) -> Element:
        """The title, and an HTML table that scrolls sideways where it is wide; figures have the class ``figure``."""
        head = [element("th", column.title, scope="col", class_=_side(column)) for column in self.columns]
        body = [
            element("tr", [element("td", column.cell(row), class_=_side(column)) for column in self.columns])
            for row in self.rows
        ]
        table = element("table", element("thead", element("tr", head)), element("tbody", body))
        title = element("h3", self.title) if self.title else None
        return element("div", title, element("div", table, class_="scroll"))

    def print(self, file: IO[str] | None = None) -> None:
        """Write the table for people to ``file`` (default: stdout); in a pipe nothing is wrapped or cut off."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        stream = file or sys.stdout
        console = Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)
        view = RichTable(box=box.SIMPLE_HEAD, show_header=any(column.title for column in self.columns))
        for column in self.columns:
            view.add_column(Text(line(column.title)), justify="right" if column.right else "left", overflow="fold")
        for row in self.rows:
            view.add_row(*(Text(line(column.cell(row))) for column in self.columns))
        if self.title:
            console.print(Text(lines(self.title), style="bold"))
        console.print(view)


def _side(column: Column) -> str | None:
    return "figure" if column.right else None


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"
