"""Calls of the command line in processes of their own, and how each ends: by a code, by a signal, or not at all."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from metaprune_cli.cli import app

LIMIT_S = 60.0
MEMORY = 6 << 30  # bytes of address space beyond what the process has
ALLOWED = (0, 2, 3, 4)
READ = 1 << 16  # bytes of what a call printed


@dataclass(frozen=True)
class Call:
    """A call: the files to lay down in the folder first, by name, and its arguments."""

    files: dict[str, bytes]
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """How a call ended: an exit code, or minus a signal, or None where it had to be killed; and what it printed."""

    code: int | None
    seconds: float
    text: str

    @property
    def sound(self) -> bool:
        """Whether a user may see a call end so."""
        return self.code in ALLOWED and "Traceback" not in self.text and "Unexpected error" not in self.text


def attack(arguments: Sequence[object], folder: Path, limit_s: float = LIMIT_S) -> Ending:
    """Run ``metaprune ARGUMENTS`` in ``folder``, in a fork of this process, which has imported everything already."""
    (ending,) = attack_all([Call({}, tuple(map(str, arguments)))], folder, limit_s)
    return ending


def attack_all(calls: Sequence[Call], folder: Path, limit_s: float = LIMIT_S) -> Iterator[Ending]:
    """Run calls one after the other in one fork; where one of them ends it, or does not end, the rest in another."""
    done = 0
    while done < len(calls):
        for ending in _in_a_fork(calls[done:], folder, limit_s):
            done += 1
            yield ending


def _in_a_fork(calls: Sequence[Call], folder: Path, limit_s: float) -> Iterator[Ending]:
    _command()
    gc.freeze()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(reading) as told:
        child = os.fork()
        if not child:
            _run_all(calls, folder, output.fileno(), writing)
        os.close(writing)
        started, line = time.monotonic(), "..."
        for _ in calls:
            ready, _, _ = select.select([told], [], [], limit_s)
            line = told.readline() if ready else ""
            if not line:
                break
            code, seconds, text = json.loads(line)
            yield Ending(code, seconds, text)
            started = time.monotonic()
        if not ready:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not line:
            output.seek(0)
            text = output.read(READ).decode(errors="replace")
            yield Ending(os.waitstatus_to_exitcode(status) if ready else None, time.monotonic() - started, text)


def _run_all(calls: Sequence[Call], folder: Path, output: int, writing: int) -> None:
    """In the fork; a line of JSON for every call that ends."""
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(fd, "w", errors="backslashreplace", closefd=False) for fd in (1, 2))  # noqa: SIM115
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        with open(writing, "w") as told:
            for call in calls:
                os.ftruncate(output, 0)
                os.lseek(output, 0, os.SEEK_SET)
                started = time.monotonic()
                code = _run(call)
                seconds, text = time.monotonic() - started, os.pread(output, READ, 0).decode(errors="replace")
                told.write(json.dumps([code, seconds, text]) + "\n")
                told.flush()
    finally:
        os._exit(1)


@cache
def _command() -> Any:
    """The command line; to build it takes ten times as long as most calls."""
    return typer.main.get_command(app)


def _run(call: Call) -> int:
    for name, data in call.files.items():
        shutil.rmtree("out", ignore_errors=True)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)
    code = 0
    try:
        _command().main(call.arguments, prog_name="metaprune")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - a traceback, as Python would end with
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code
