"""Calling the command line in processes that can be killed, without importing torch for each of them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ranks_calling import IMPORTED

from metaprune_cli.cli import main
from metaprune_cli.workflows.made import Checkpoint

LATER = ["sklearn.datasets", "torch._dynamo"]
"""What training imports once it runs, which takes longer than all that it does in these tests."""
PRELOADED = [*IMPORTED, *LATER, "metaprune_cli.stages.iterate", "metaprune_cli.stages.export", __name__]


@dataclass(frozen=True)
class Moment:
    """When a process ends itself with SIGKILL: the ``number``-th time that ``what`` happens."""

    what: str
    number: int = 1


def started(folder: Path, *arguments: object, until: Moment | None = None) -> BaseProcess:
    """``metaprune ARGUMENTS`` in a folder, as a process that has been started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    given = (str(folder), [str(argument) for argument in arguments], until)
    process = context.Process(target=_call, args=given)
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """The exit code; of a process that was killed, the signal with a minus."""
    process.join(timeout=120)
    assert process.exitcode is not None
    return process.exitcode


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, hidden files included."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _call(folder: str, arguments: list[str], until: Moment | None) -> None:
    os.chdir(folder)
    if until is not None:
        _kill_at_(until)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    sys.argv = ["metaprune", *arguments]
    main()


def _kill_at_(moment: Moment) -> None:
    """Count the calls of a function, and end this process at one of them: before it, or after it."""
    places: dict[str, tuple[Any, str, bool]] = {
        "file is being written": (os, "fsync", False),
        "checkpoint was saved": (Checkpoint, "save", True),
        "output is there, and its checkpoint still": (Checkpoint, "discard", False),
    }
    owner, name, after = places[moment.what]
    real: Callable[..., Any] = getattr(owner, name)
    calls = itertools.count(1)

    def counted(*args: Any, **keywords: Any) -> Any:
        due = next(calls) == moment.number
        if due and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **keywords)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)
