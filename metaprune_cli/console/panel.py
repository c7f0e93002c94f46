"""The error panel: what, expected, got, where, next step; on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from metaprune_cli.console.text import line, lines

PIPE_WIDTH = 120


def print_panel(title: str, what: str, rows: Sequence[tuple[str, str]] = (), file: IO[str] | None = None) -> None:
    """Write one panel to ``file`` (default: stderr): the sentence, then a row for each detail."""
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    stream = file or sys.stderr
    console = Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)
    details = Table.grid(padding=(0, 2))
    details.add_column(style="dim", no_wrap=True)
    details.add_column(overflow="fold")
    for name, text in rows:
        details.add_row(name, Text(lines(text)))
    said = Text(lines(what))
    body = Group(said, Text(), details) if rows else said
    console.print(Panel(body, title=Text(title, style="bold"), title_align="left", border_style="red"))


def print_note(text: str, file: IO[str] | None = None) -> None:
    """Write one line that is not a result to ``file`` (default: stderr)."""
    (file or sys.stderr).write(f"{line(text)}\n")


def print_text(text: str) -> None:
    """Write lines of text, such as a traceback, to stderr."""
    sys.stderr.write(f"{lines(text).rstrip()}\n")
