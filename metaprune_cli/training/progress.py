"""How long-running work tells someone how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Progress(Protocol):
    """A listener for one task at a time; tasks may nest."""

    def begin(self, label: str, total: int) -> None:
        """A task of ``total`` steps starts."""

    def step(self, **figures: float) -> None:
        """One step of the innermost task is done; ``figures`` are the latest metrics, of an epoch its number too."""

    def end(self) -> None:
        """The innermost task is over."""


class Silence:
    """A listener that shows nothing."""

    def begin(self, label: str, total: int) -> None:
        """Show nothing."""

    def step(self, **figures: float) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class About:
    """What a listener hears of a task is said to be about something: a model's file."""

    listener: Progress
    name: str

    def begin(self, label: str, total: int) -> None:
        """A task starts; its label names what it is about."""
        self.listener.begin(f"{label} {self.name}", total)

    def step(self, **figures: float) -> None:
        """Passed on."""
        self.listener.step(**figures)

    def end(self) -> None:
        """Passed on."""
        self.listener.end()


def counted(items: Iterable[Item], progress: Progress, label: str, total: int) -> Iterator[Item]:
    """The items, each of which is a step of a task of its own; the task ends with them."""
    progress.begin(label, total)
    for item in items:
        yield item
        progress.step()
    progress.end()
