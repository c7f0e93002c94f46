"""Judges at work: here, in processes of their own, or shared out among ranks; the verdicts are the same."""

from __future__ import annotations

import functools
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metaprune_cli.console.streams import prepare
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.workflows.judging import Images, Judge, Judged

Kept = tuple[Tensor, ...]
"""The units that stay, of each of a group's models."""


@dataclass(frozen=True, eq=False)
class Panel:
    """The judges of a group of models, and where they do their work.

    Attributes:
        judges: one for each model.
        apply: gives the verdicts on choices, in their order and as they are there.
        ranks: share the choices out among themselves; each gets all verdicts.
    """

    judges: tuple[Judge, ...]
    apply: Callable[[Images, Sequence[Kept]], Iterator[Judged]]
    ranks: Ranks = ALONE

    @classmethod
    @contextmanager
    def at_work(cls, judges: Sequence[Judge], jobs: int = 1, ranks: Ranks = ALONE) -> Iterator[Panel]:
        """With so many processes for the time of the block; 0: as many as this one may use cores.

        Raises:
            InputError: that many cannot be run.
            MetapruneError: a process was killed from outside.
        """
        if jobs < 0:
            raise InputError("That many jobs cannot be run.", expected="1 or more, or 0 for one per core", got=jobs)
        own = tuple(judges)
        if jobs == 1:
            yield cls(own, lambda images, some: (together(own, images, kept) for kept in some), ranks)
            return
        with _processes(own, jobs) as apply:
            yield cls(own, apply, ranks)

    def judged(
        self, images: Images, some: Sequence[Kept], on_verdict: Callable[[Judged], None] | None = None
    ) -> list[Judged]:
        """A verdict for each choice, in their order; of this rank's share, somebody is told at once."""
        mine: list[Judged] = []
        share = self.ranks.share(some)
        for verdict in self.apply(images, share) if share else ():
            mine.append(verdict)
            if on_verdict is not None:
                on_verdict(verdict)
        return self.ranks.collect(mine, patient=True)


def together(judges: Sequence[Judge], images: Images, kept: Kept) -> Judged:
    """What all models of a group come to with a choice of units."""
    found = [
        judge.quickly(own) if images == "judging" else judge.thoroughly(own)
        for judge, own in zip(judges, kept, strict=True)
    ]
    headline = sum(one.headline for one in found) / len(found)
    return Judged(tuple(part for one in found for part in one.parts), headline)


@contextmanager
def _processes(judges: tuple[Judge, ...], jobs: int) -> Iterator[Callable[[Images, Sequence[Kept]], Iterator[Judged]]]:
    """Each reads the judges once, from a file that only this user can read and that goes at the end."""
    from joblib import Parallel, cpu_count, delayed
    from joblib.externals.loky.backend.reduction import dumps
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with tempfile.TemporaryDirectory(prefix="metaprune-search-") as folder:
        file = Path(folder) / "judges"
        try:
            file.write_bytes(dumps(judges))
        except (pickle.PicklingError, AttributeError, RuntimeError, TypeError) as error:
            raise InputError(
                "This model cannot be handed to other processes.",
                got=f"{type(error).__name__}: {error}"[:200],
                where="--jobs",
                next_step="--jobs 1, or several processes by torchrun",
            ) from error
        parallel = Parallel(jobs or cpu_count(), batch_size=1, return_as="generator")

        def apply(images: Images, some: Sequence[Kept]) -> Iterator[Judged]:
            try:
                yield from parallel(delayed(_judged)(str(file), images, kept) for kept in some)
            except TerminatedWorkerError:
                raise MetapruneError(
                    "A worker process was killed from outside, perhaps because memory ran out.",
                    next_step="run it with fewer --jobs; with --resume it goes on where it was",
                ) from None

        yield apply


def _judged(file: str, images: Images, kept: Kept) -> Judged:
    prepare()  # this process has streams of its own
    return together(_read(file), images, kept)


@functools.lru_cache(maxsize=1)
def _read(file: str) -> Any:
    return pickle.loads(Path(file).read_bytes())
