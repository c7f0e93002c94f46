"""What every subcommand shares around its work: errors become a panel and an exit code, results go to stdout."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import typer

from metaprune_cli.cli.command import check_parameters
from metaprune_cli.cli.sections import NO_FILE, about_images, unasked
from metaprune_cli.console.panel import print_panel, print_text
from metaprune_cli.console.streams import silence_
from metaprune_cli.console.table import Table
from metaprune_cli.errors import InputError, MetapruneError

P = ParamSpec("P")
R = TypeVar("R")

OF_SEVERAL = ("zoo", "meta_train", "pruning_net", "search", "dhp", "finetune")
"""The commands whose work several processes can share."""

GOING_ON = {"compress": None, "coverage": "output"}
"""The commands that keep a record of what is done and need no ``--resume``, and the option that says where, if one."""
EXIT_BUG = 1
EXIT_INTERRUPTED = 130


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose every error ends as one panel on stderr and its exit code; ``--debug`` adds the traceback."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            _check_surroundings()
            _check_alone(command.__name__)
            check_parameters(kwargs)
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise  # Typer's own business, and the edge's
        except KeyboardInterrupt:
            _panel(
                "Interrupted",
                "Stopped as it was told to; every file that is there is whole.",
                _go_on(command.__name__, kwargs),
            )
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001 - the outermost line: nothing may reach the user as a traceback
            if kwargs.get("debug"):
                print_text(traceback.format_exc())
            raise typer.Exit(report(error, _blamed(error, kwargs))) from None

    return wrapper


def show(payload: Mapping[str, Any], *tables: Table, as_json: bool) -> None:
    """Print the result on stdout: ``payload`` as exactly one JSON object, or the tables for people."""
    try:
        if as_json:
            sys.stdout.write(json.dumps(_plain(payload), allow_nan=False) + "\n")
        else:
            for table in tables:
                table.print()
        sys.stdout.flush()
    except OSError:
        silence_()
        raise


def report(error: Exception, further: Sequence[tuple[str, str]] = ()) -> int:
    """Show the panel, ``further`` rows at its end; return the exit code."""
    if isinstance(error, OSError):
        error = _from_system(error)
    if _is_for_want_of_memory(error):
        error = InputError(
            "Out of memory.",
            got=str(error).splitlines()[0][:200] if str(error) else None,
            next_step="use smaller batches or images, fewer --jobs, or a machine with more memory; a file may "
            "also claim to be larger than it is",
        )
    if isinstance(error, RecursionError):
        error = InputError(
            "An input is nested too deeply.",
            expected="fewer levels of lists, mappings or modules inside each other",
            next_step="look at the files that were given; --debug shows where it was",
        )
    if isinstance(error, MetapruneError):
        _panel(error.title, error.what, [*error.lines(), *further])
        return error.exit_code
    _panel(
        "Unexpected error",
        f"{type(error).__name__}: {error}",
        [
            (
                "next step",
                "run it again with --debug; report the traceback and what `metaprune env` says: a fault of ours",
            )
        ],
    )
    return EXIT_BUG


def _go_on(command: str, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How an interrupted command is taken up again."""
    if command in GOING_ON:
        where = GOING_ON[command]
        if where is None or given.get(where) is not None:
            return [("go on", "the same command again: what is done is not done again")]
        return [("go on", f"the same command again, from the beginning; with --{where} it keeps what is done")]
    if "resume" in given:
        return [("go on", "the same command with --resume: it continues after the last epoch that was finished")]
    return [("go on", "the same command again, from the beginning")]


def _blamed(error: Exception, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a settings file that nobody named is the cause: that it was read, what it says, and how to leave it out."""
    file = unasked(given) if getattr(error, "about", None) == "data" else None
    if file is None:
        return []
    said = about_images(file) or "its section data"
    return [
        ("because", f"{file} was read, which is about other images or another task ({said})"),
        ("or", f"--dataset and --data-root for yours; or --params {NO_FILE}, which leaves {file} out"),
    ]


def _is_for_want_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of this machine or of its GPU; PyTorch's allocator for the CPU says so in words alone."""
    words = (
        "not enough memory",
        "annot allocate memory",
        "can't allocate memory",
        "out of memory",
        "Storage size calculation overflowed",
    )
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _panel(title: str, what: str, rows: Sequence[tuple[str, str]] = ()) -> None:
    """Show the panel, unless another process of this run has shown one already; it may have nowhere to go."""
    if not _of_several() or _first_to_fail():
        with suppress(OSError, ValueError, AttributeError):
            print_panel(title, what, rows)


def _check_surroundings() -> None:
    """Refuse a working directory that is gone: PyTorch ends the process without one.

    Raises:
        InputError: it is gone.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(
            "The working directory no longer exists.", got=error.strerror, next_step="change to another one"
        ) from error


def _of_several() -> bool:
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def _first_to_fail() -> bool:
    from metaprune_cli.workflows.ranks import first_to_fail

    return first_to_fail()


def _check_alone(command: str) -> None:
    if _of_several() and command not in OF_SEVERAL:
        raise InputError(
            "This command runs in one process.",
            expected=f"one of {', '.join(OF_SEVERAL).replace('_', '-')}",
            next_step="run it without torchrun",
        )


def _from_system(error: OSError) -> InputError:
    steps = {
        **dict.fromkeys(
            (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room on the disk, or choose another place with -o"
        ),
        errno.EACCES: "change the permissions, or choose another place with -o",
        errno.ENOENT: "check the path",
    }
    reason = error.strerror or str(error)
    return InputError(f"{reason}.", where=error.filename, next_step=steps.get(error.errno or 0))


def _plain(value: Any) -> Any:
    """Strict JSON: paths as text, tuples as lists, and what is not a finite number as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
