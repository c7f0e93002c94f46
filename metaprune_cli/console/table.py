"""One table, many renderings: rich text for people, records for ``--json``, Markdown and HTML for reports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import IO, Any, Literal
from xml.etree.ElementTree import Element

from metaprune_cli.console.figures import plain
from metaprune_cli.console.markup import element
from metaprune_cli.console.text import line, lines, markdown

PIPE_WIDTH = 10_000  # a pipe has no edge: nothing may be cut off there
LONG_NAME, SHORT_NAME = 40, 24
"""Characters of a name in a narrow terminal: its end says as much as its beginning."""
WIDE: ContextVar[bool] = ContextVar("wide", default=False)
"""Whether the user wants every column, however narrow the terminal."""


@dataclass(frozen=True)
class Column:
    """One column: the rows' key, its heading, and how a value is written (``None`` is always an empty cell).

    A ``minor`` one is the first to be left out where a terminal is too narrow for all.
    """

    key: str
    title: str
    write: Callable[[Any], str] = plain
    right: bool = True
    minor: bool = False

    def cell(self, row: Mapping[str, Any]) -> str:
        """The row's value under this column, as text."""
        value = row.get(self.key)
        return "" if value is None else self.write(value)


def label(key: str, title: str, *, minor: bool = False) -> Column:
    """A column of words: left-aligned."""
    return Column(key, title, right=False, minor=minor)


Filled = tuple[Column, Sequence[str]]
"""A column and its cells."""


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
        whole = WIDE.get() or not stream.isatty()
        console = Console(file=stream, width=PIPE_WIDTH if whole else None, highlight=False)
        cells = [(column, [line(column.cell(row)) for row in self.rows]) for column in self.columns]
        fitted = fit(cells, console.width)
        view = RichTable(box=box.SIMPLE_HEAD, show_header=any(column.title for column in self.columns))
        for column, texts in fitted:
            justify: Literal["left", "right"] = "right" if column.right else "left"
            view.add_column(Text(line(column.title)), justify=justify, overflow="fold", no_wrap=not _is_prose(texts))
        for row in zip(*(texts for _, texts in fitted), strict=True):
            view.add_row(*map(Text, row))
        if self.title:
            console.print(Text(lines(self.title), style="bold"))
        console.print(view)
        left_out = len(self.columns) - len(fitted)
        if left_out:
            console.print(Text(f"  {left_out} more column{'s' if left_out > 1 else ''}: --wide", style="dim"))


def fit(columns: Sequence[Filled], width: int) -> list[Filled]:
    """The columns that a terminal has room for: names shortened in the middle, then minor ones left out, then the last.

    Sentences are not shortened: they go on in the next line.

    Args:
        columns: and the cells of each; the first is never left out.
        width: of the terminal, in characters.
    """
    found = list(columns)
    for longest in (LONG_NAME, SHORT_NAME):
        if _width(found) > width:
            found = [_shortened(column, cells, longest) for column, cells in found]
    while _width(found) > width and len(found) > 1:
        minor = [place for place, (column, _) in enumerate(found) if column.minor and place]
        found.pop(minor[-1] if minor else -1)
    return found


def _width(columns: Sequence[Filled]) -> int:
    """What a table takes: its columns, two spaces around each and one between them."""
    return sum(2 + _needed(column, cells) for column, cells in columns) + len(columns) + 1


def _needed(column: Column, cells: Sequence[str]) -> int:
    longest = max(map(len, [column.title, *cells]))
    return max(min(longest, SHORT_NAME), len(column.title)) if _is_prose(cells) else longest


def _is_prose(cells: Sequence[str]) -> bool:
    """Whether there are words between which a line may be broken; two are a figure and its unit."""
    return any(cell.count(" ") > 1 for cell in cells)


def _shortened(column: Column, cells: Sequence[str], longest: int) -> Filled:
    """Words shortened to so many characters, or to as many more as it takes to tell them apart."""
    if column.right or _is_prose(cells):
        return column, cells
    while True:
        short = [_middle_out(cell, longest) for cell in cells]
        if len(set(short)) == len(set(cells)):
            return column, short
        longest += 2


def _middle_out(text: str, longest: int) -> str:
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def _side(column: Column) -> str | None:
    return "figure" if column.right else None


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"
