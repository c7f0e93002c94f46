"""Long measurements in slices: what is half done is left in a folder, and the next call goes on from there."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import OptimSettings
from metaprune_cli.data import Split
from metaprune_cli.training.loop import fit
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.state import TrainState


class PausedError(Exception):
    """The slice is over; what was done so far is in the work folder."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The time that is left of this call."""

    seconds: float
    begun: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Go on, or not.

        Raises:
            PausedError: the time is over.
        """
        if time.monotonic() - self.begun > self.seconds:
            raise PausedError


@dataclass(frozen=True)
class Work:
    """A folder of half-done work."""

    folder: Path

    def keep(self, name: str, content: Any) -> None:
        """Leave something there, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{name}.{os.getpid()}"
        torch.save(content, part)
        part.replace(self._file(name))

    def found(self, name: str) -> Any:
        """What lies there; None if nothing does."""
        file = self._file(name)
        return torch.load(file, weights_only=True) if file.exists() else None

    def remembered(self, name: str, make: Callable[[], Any]) -> Any:
        """What was made once."""
        if not self._file(name).exists():
            self.keep(name, make())
        return self.found(name)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.pt"


@dataclass(frozen=True)
class Rows:
    """A file of results, a line of JSON for each thing that was measured; nothing is measured twice.

    Attributes:
        file: is written to.
        kind: of the things: a dataclass whose fields say which.
    """

    file: Path
    kind: type

    def known(self) -> set[Any]:
        """What is measured already."""
        names = [field.name for field in fields(self.kind)]
        rows = map(json.loads, self.file.read_text().splitlines()) if self.file.exists() else ()
        return {self.kind(**{name: row[name] for name in names}) for row in rows}

    def measure(self, things: Iterable[Any], figures: Callable[[Any], dict[str, Any]], slice_: Slice) -> None:
        """What is missing, one after the other, until the slice is over."""
        known = self.known()
        for thing in (one for one in things if one not in known):
            try:
                slice_.check()
                found = figures(thing)
            except PausedError:
                print("the time is over; call again to go on", flush=True)
                return
            row = {**asdict(thing), **found, "commit": commit()}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:  # a line at once: other processes write too
                file.write(json.dumps(row) + "\n")
            print(*asdict(thing).values(), f"test {found['test_top1']:.2f}", flush=True)
        print("everything is measured", flush=True)


def commit() -> str:
    """The code that measures."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def train_in_slices(
    model: nn.Module, train: Split, settings: OptimSettings, *, work: Work, name: str, slice_: Slice, **given: Any
) -> nn.Module:
    """A trained copy; after every epoch its state is kept, from which the next slice goes on.

    Args:
        model: the network.
        train: the samples.
        settings: how.
        work: where the state is kept.
        name: under which.
        slice_: is asked after every epoch.
        **given: whatever else ``fit`` takes.

    Raises:
        PausedError: the slice is over.
    """
    name = f"{name}.checkpoint"
    found = work.found(name)

    def keep(state: TrainState) -> None:
        work.keep(name, vars(state))
        if state.epoch < settings.epochs:
            slice_.check()

    state = None if found is None else TrainState(**found)
    return fit(model, train, settings, state=state, on_epoch=keep, augment=True, progress=Silence(), **given).model
