"""A folder for files that nobody but the user can have written, and reading and writing such files."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NotPrivateError(Exception):
    """Somebody else may write there, or there is no such place."""


Kind = Literal["cache", "state"]
PLACES: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {"cache": ("XDG_CACHE_HOME", ".cache"), "state": ("XDG_STATE_HOME", ".local/state")}
)
"""What names a folder of each kind, and where it is below the home folder if nothing does."""


def private_folder(kind: Kind = "cache") -> Path:
    """The user's folder of a kind (``$XDG_CACHE_HOME/metaprune``, else ``~/.cache/metaprune``), without symbolic links.

    It and the folders above it belong to the user or the system, and nobody else may exchange anything in them. Only
    where it ends counts, not how links lead there. Access lists beyond mode bits are not looked at.

    Raises:
        NotPrivateError: there is none that nobody else can write to; says why.
        OSError: it cannot be made.
    """
    folder = _root(kind) / "metaprune"
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(0o700, exist_ok=True)  # made by another process in the meantime: looked at below all the same
    folder = folder.resolve(strict=True)
    for part in (folder, *folder.parents):
        found = part.stat()
        if found.st_uid not in ((os.geteuid(),) if part == folder else (os.geteuid(), 0)):
            raise NotPrivateError(f"{part} belongs to another user")
        if found.st_mode & OTHERS and not (part != folder and found.st_mode & stat.S_ISVTX):
            raise NotPrivateError(f"others may write to {part} (chmod go-w, and remove what they may have left in it)")
    folder.chmod(0o700)
    return folder


def read(path: Path) -> bytes | None:
    """A file of the user's own in a private folder; None where there is none, or something else in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        own = found.st_uid == os.geteuid() and not found.st_mode & OTHERS
        return file.read() if own and stat.S_ISREG(found.st_mode) else None


def keep(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, in the place of whatever is there.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 0600
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        part.replace(path)
    except BaseException:
        part.unlink()
        raise


def _root(kind: Kind) -> Path:
    variable, usual = PLACES[kind]
    named = os.environ.get(variable, "")
    if named and Path(named).is_absolute():  # the specification says that others do not count
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError as error:
        raise NotPrivateError(f"there is no home folder (set HOME or {variable})") from error
    if not home.is_absolute() or os.environ.get("HOME") == "":
        raise NotPrivateError("HOME is not an absolute path")
    return home / usual
