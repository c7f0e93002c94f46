"""How long-running work tells someone how far it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """A listener for one task at a time; tasks may nest."""

    def begin(self, label: str, total: int) -> None:
        """A task of ``total`` steps starts."""

    def step(self, **figures: float) -> None:
        """One step of the innermost task is done; ``figures`` are the latest metrics to show."""

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
