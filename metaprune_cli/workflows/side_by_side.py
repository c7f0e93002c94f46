"""The same work on many models: one after the other, several at a time in processes of their own, or by many ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from metaprune_cli.console.streams import prepare
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.tasks import Metric
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.progress import Progress, Silence


@runtime_checkable
class Figured(Protocol):
    """A result that has a figure to show."""

    @property
    def metric(self) -> Metric:
        """What it is a figure of."""

    @property
    def headline(self) -> float | None:
        """Its value on the validation images."""


Job = TypeVar("Job")
Result = TypeVar("Result", bound=Figured)


def side_by_side(
    work: Callable[[Job, Progress], Result],
    todo: Sequence[Job],
    *,
    jobs: int,
    label: str,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> tuple[Result, ...]:
    """``work`` on every job; the results are in the order of the jobs.

    Args:
        work: a function that can be pickled, as can the jobs and results; it may report its own progress.
        todo: what to do.
        jobs: how many at a time; 0: as many as this process may use cores. With one, all runs in this process.
        label: of the progress.
        progress: is told about each of this rank's jobs that is done, and with one job about what happens inside it.
        ranks: share the jobs out among themselves; each gets the results of all.

    Raises:
        MetapruneError: what ``work`` raised, or a process was killed from outside.
    """
    if jobs < 0:
        raise InputError("That many jobs cannot be run.", expected="1 or more, or 0 for one per core", got=jobs)
    mine = ranks.share(todo)
    progress.begin(label, len(mine))
    done: dict[int, Result] = {}
    for place, result in _results(work, mine, jobs, progress):
        done[place] = result
        progress.step(**{f"val_{result.metric.key}": result.headline or 0.0})
    progress.end()
    return tuple(ranks.collect([done[place] for place in range(len(mine))], patient=True))


def _results(
    work: Callable[[Job, Progress], Result], todo: Sequence[Job], jobs: int, progress: Progress
) -> Iterator[tuple[int, Result]]:
    """Places and results, as they are done."""
    if jobs == 1 or len(todo) < 2:
        for place, job in enumerate(todo):
            yield place, work(job, progress)
        return
    from joblib import Parallel, cpu_count, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    workers = min(jobs or cpu_count(), len(todo))
    parallel = Parallel(workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers)
    try:
        yield from parallel(delayed(_placed)(work, place, job) for place, job in enumerate(todo))
    except TerminatedWorkerError:
        raise MetapruneError(
            "A worker process was killed from outside, perhaps because memory ran out.",
            next_step="run it with fewer --jobs; with --resume it goes on where it was",
        ) from None


def _placed(work: Callable[[Job, Progress], Result], place: int, job: Job) -> tuple[int, Result]:
    prepare()  # this process has streams of its own
    return place, work(job, Silence())
