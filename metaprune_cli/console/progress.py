"""Progress on stderr: nested bars in a terminal, a line now and then where there is none, or nothing."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from metaprune_cli.console.text import line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_EVERY_S = 10.0  # a log file wants a sign of life, not a bar


class Listener(Protocol):
    """The shape of ``training.progress.Progress``, met here without importing upward."""

    def begin(self, label: str, total: int) -> None:
        """A task of ``total`` steps starts inside the present one."""

    def step(self, **figures: float) -> None:
        """One step of the innermost task is done."""

    def end(self) -> None:
        """The innermost task is over."""


class Quiet:
    """Shows nothing."""

    def begin(self, label: str, total: int) -> None:
        """Show nothing."""

    def step(self, **figures: float) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


class Bars:
    """One bar for each task under way, the innermost last."""

    def __init__(self, view: RichProgress) -> None:
        self._view = view
        self._tasks: list[TaskID] = []

    def begin(self, label: str, total: int) -> None:
        """Add a bar."""
        indent = "  " * len(self._tasks)
        self._tasks.append(self._view.add_task(f"{indent}{line(label)}", total=total, figures=""))

    def step(self, **figures: float) -> None:
        """Advance the innermost bar."""
        self._view.update(self._tasks[-1], advance=1, figures=_written(figures))

    def end(self) -> None:
        """Take the innermost bar away."""
        self._view.remove_task(self._tasks.pop())


class Lines:
    """For pipes and log files: the outermost task's state, at most once every ``LINE_EVERY_S``, and at its end."""

    def __init__(self) -> None:
        self._tasks: list[tuple[str, int]] = []
        self._done = 0
        self._figures = ""
        self._written_at = time.monotonic()

    def begin(self, label: str, total: int) -> None:
        """Note the task; write nothing yet."""
        if not self._tasks:
            self._done, self._figures = 0, ""
        self._tasks.append((label, total))

    def step(self, **figures: float) -> None:
        """Count the step, and write a line if the last one is long ago."""
        if len(self._tasks) == 1:
            self._done += 1
        self._figures = _written(figures) or self._figures
        if time.monotonic() - self._written_at >= LINE_EVERY_S:
            self._write()

    def end(self) -> None:
        """Write the outermost task's last line."""
        if len(self._tasks) == 1:
            self._write()
        self._tasks.pop()

    def _write(self) -> None:
        label, total = self._tasks[0]
        sys.stderr.write(f"{line(label)}: {self._done}/{total} {self._figures}".rstrip() + "\n")
        sys.stderr.flush()
        self._written_at = time.monotonic()


@contextmanager
def listening(quiet: bool = False) -> Iterator[Listener]:
    """A listener for the time of the ``with`` block; whatever happens inside, the terminal is left clean."""
    if quiet:
        with _hushed():
            yield Quiet()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", style="dim", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as view:
            yield Bars(view)


@contextmanager
def _hushed() -> Iterator[None]:
    """Nothing on stderr but errors, whoever would write it."""
    log = logging.getLogger("metaprune_cli")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _written(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
