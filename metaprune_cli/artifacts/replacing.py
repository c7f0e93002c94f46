"""Replacing a file: a temporary sibling, flushed to disk, then renamed; all of it or nothing."""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME_BYTES = 150  # of 255 that most file systems allow, so that a long name has room for the rest


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a new file at, which takes the place of ``path`` in the end.

    The name is this thread's own, so two that write one file do not meet: the last to end wins. Whatever is raised
    inside, the sibling is removed and ``path`` stays as it is.

    Raises:
        OSError: the file cannot be written.
    """
    _remove_leftovers(path)
    sibling = path.with_name(f"{_prefix(path)}{os.getpid()}-{threading.get_native_id()}.tmp")
    sibling.unlink(missing_ok=True)  # of a dead process that had our number, in a container say
    try:
        yield sibling
        _sync(sibling)
        sibling.replace(path)
    except BaseException:
        with suppress(OSError):
            sibling.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # make the rename last through a power cut, where the system can do that for folders
        _sync(path.parent)


def _prefix(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])}."


def _remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed while it wrote this file has left beside it."""
    prefix = _prefix(path)
    for sibling in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        owner = re.fullmatch(r"(\d{1,9})(-\d+)?\.tmp", sibling.name.removeprefix(prefix))
        if owner and not _is_alive(int(owner[1])):
            with suppress(OSError):
                sibling.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # someone else's
        return True
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
