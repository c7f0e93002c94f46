"""Where the command line meets the process: usage errors shown as text, a quiet end when the reader leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from metaprune_cli.cli.command import UsageError
from metaprune_cli.cli.run import report
from metaprune_cli.console.streams import READER_GONE, prepare, silence_
from metaprune_cli.console.text import lines


class Edge(TyperGroup):
    """The commands, with what holds for every call of any of them."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line."""
        prepare()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the options before the command's name."""
        with _edge():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest and run the command."""
        with _edge():
            return super().invoke(ctx)


@contextmanager
def _edge() -> Iterator[None]:
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except UsageError as error:
        raise _shown(error) from None
    except (OSError, SystemExit) as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):  # rich exits
            silence_()
            raise typer.Exit(READER_GONE) from None
        if isinstance(error, SystemExit):
            raise
        silence_()
        raise typer.Exit(report(error)) from None


def _shown(error: Any) -> Any:
    """The same error, what it repeats of the command line fit for a terminal."""
    said = error.format_message()
    safe = lines(said)
    return error if safe == said else UsageError(safe, error.ctx)
