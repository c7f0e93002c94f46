"""Progress on stderr: nested bars in a terminal, a line now and then where there is none, or nothing."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from metaprune_cli.console.text import line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LONGEST_LABEL = 40
"""Characters of a bar's name; of what is longer, the middle is left out."""
LINE_EVERY_S = 10.0  # a log file wants a sign of life, not a bar
FIGURES_EVERY_S = 1.0  # and every epoch's figures, but of epochs that are over in a moment


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


@dataclass
class Task:
    """A task under way: what it is called, and how many of its steps are done."""

    label: str
    total: int
    done: int = 0

    def __str__(self) -> str:
        return f"{line(self.label)}: {self.done}/{self.total}"


class Bars:
    """One bar for each task under way, the innermost last; a part of an inner one is a smaller part of the outer ones.

    So the time left is known of all of them, long before the first step of an outer one is done.
    """

    def __init__(self, view: RichProgress) -> None:
        self._view = view
        self._tasks: list[tuple[TaskID, Task]] = []

    def begin(self, label: str, total: int) -> None:
        """Add a bar."""
        indent = "  " * len(self._tasks)
        name = line(label, LONGEST_LABEL)
        self._tasks.append((self._view.add_task(f"{indent}{name}", total=total, figures=""), Task(label, total)))

    def step(self, **figures: float) -> None:
        """Advance the innermost bar, and those around it by their part."""
        identity, task = self._tasks[-1]
        task.done += 1
        if figures:
            self._view.update(identity, figures=_written(figures))
        part = 0.0
        for identity, task in reversed(self._tasks):
            self._view.update(identity, completed=task.done + part)
            part = min((task.done + part) / max(task.total, 1), 1.0)

    def end(self) -> None:
        """Take the innermost bar away."""
        self._view.remove_task(self._tasks.pop()[0])


class Lines:
    """For pipes and log files: figures as they come, a sign of life every ``LINE_EVERY_S``, and the end of it all."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._figures = ""
        self._written_at = time.monotonic()

    def begin(self, label: str, total: int) -> None:
        """Note the task; write nothing yet."""
        if not self._tasks:
            self._figures = ""
        self._tasks.append(Task(label, total))

    def step(self, **figures: float) -> None:
        """Count the step; write its figures, or, if the last line is long ago, where the work is."""
        self._tasks[-1].done += 1
        self._figures = _written(figures) or self._figures
        wait = FIGURES_EVERY_S if figures and len(self._tasks) > 1 else LINE_EVERY_S
        if time.monotonic() - self._written_at >= wait:
            self._write(_written(figures))

    def end(self) -> None:
        """Write the outermost task's last line."""
        if len(self._tasks) == 1:
            self._write(self._figures)
        self._tasks.pop()

    def _write(self, figures: str) -> None:
        where = " · ".join(map(str, self._tasks))
        sys.stderr.write(f"{where} {figures}".rstrip() + "\n")
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
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items() if name != "epoch")
