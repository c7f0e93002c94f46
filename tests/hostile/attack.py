"""One call of the command line in a process of its own, with an eye on how it ends: a code, a signal, or not at all."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60.0
MEMORY = 6 << 30  # bytes of address space beyond what the process has
ALLOWED = (0, 2, 3, 4)


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
    """Run ``metaprune ARGUMENTS`` in ``folder`` in a fork of this process, which has imported everything already."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        gc.freeze()
        child = os.fork()
        if not child:
            _run([str(argument) for argument in arguments], folder, output.fileno())
        code = _wait(child, limit_s)
        output.seek(0)
        return Ending(code, time.monotonic() - started, output.read(1 << 20).decode(errors="replace"))


def _run(arguments: list[str], folder: Path, output: int) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(fd, "w", errors="backslashreplace", closefd=False) for fd in (1, 2))  # noqa: SIM115
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        code = _call(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it is
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _call(arguments: list[str]) -> int:
    from metaprune_cli.cli import main

    sys.argv = ["metaprune", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _wait(child: int, limit_s: float) -> int | None:
    descriptor = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([descriptor], [], [], limit_s)
        if not ended:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) if ended else None
    finally:
        os.close(descriptor)
