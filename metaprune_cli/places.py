"""What a path leads to, told from the file system alone: nothing is opened, so no pipe waits, no device never ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from metaprune_cli.errors import InputError

ROOM_IN_NAMES = 40
"""Bytes that a temporary sibling's name may need around that of its file: a dot, a process's number, a suffix."""
NAME_BYTES, PATH_BYTES = 255, 4096  # where the system does not say

FOLDER = "is a folder"
CONFIG = "config.json"
"""What makes a folder one model: it says which class of ``transformers`` the weights beside it are of."""
INDEX_SUFFIX = ".index.json"
"""How the file is called that says in which of several files each tensor of a model is."""
_KINDS = (
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def is_pretrained(path: Path) -> bool:
    """Whether a path is a folder that is one model, as ``save_pretrained`` writes it."""
    return unreadable(path) == FOLDER and unreadable(path / CONFIG) is None


def unreadable(path: Path) -> str | None:
    """Why no file can be read from this path; None where it leads to a regular file that may be opened."""
    problem = _missing(path)
    if problem is not None:
        return problem
    mode = path.stat().st_mode
    problem = next((words for is_kind, words in _KINDS if is_kind(mode)), None)
    if problem is not None:
        return problem
    return None if os.access(path, os.R_OK) else "no permission to read it"


def unwritable(path: Path) -> str | None:
    """Why no file can be made, or replaced, at this place; None where one can, as far as that shows beforehand."""
    problem = _unusable_name(path)
    if problem is not None:
        return problem
    if os.path.lexists(path):
        problem = _irreplaceable(path)
        if problem is not None:
            return problem
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        return f"{above} {_missing(above) or 'is a file'}"
    return None if os.access(above, os.W_OK | os.X_OK) else f"no permission to write in {above}"


def check_readable(path: Path, what: str = "The file") -> None:
    """Refuse a path from which nothing can be read to an end.

    Args:
        path: the file.
        what: it is to be, in words, for the message.

    Raises:
        InputError: it is not there, is no regular file, or may not be opened.
    """
    problem = unreadable(path)
    if problem is not None:
        raise InputError(
            f"{what} cannot be read.",
            expected="a regular file",
            got=problem,
            where=printable(path),
            next_step="check the path and its permissions; pipes are not supported, so save the data to a file first",
        )


def printable(path: Path) -> str:
    """A path for a message; characters that are none are written as Python would."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _missing(path: Path) -> str | None:
    """Why a path leads nowhere."""
    try:
        path.stat()
    except ValueError:
        return "its name contains a null character"
    except FileNotFoundError:
        return "is a link to something that does not exist" if path.is_symlink() else "does not exist"
    except RuntimeError:
        return "is a link that leads in a circle"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    return None


def _irreplaceable(path: Path) -> str | None:
    """Why what is at a place cannot give way to a file."""
    problem = _missing(path)
    if problem is not None:
        return problem
    mode = path.stat().st_mode
    problem = next((words for is_kind, words in _KINDS if is_kind(mode)), None)
    if problem is not None:
        return problem
    return None if mode & 0o222 else "is write-protected"


def _unusable_name(path: Path) -> str | None:
    """Why no file can bear this name: a null character, or too long for the file or for its temporary sibling."""
    text = os.fsencode(path.absolute())
    if b"\0" in text:
        return "its name contains a null character"
    if len(text) + ROOM_IN_NAMES > PATH_BYTES:
        return f"its path is too long: {len(text)} bytes"
    *folders, name = map(os.fsencode, path.absolute().parts)
    if len(name) + ROOM_IN_NAMES > NAME_BYTES:
        return f"its name is too long: {len(name)} bytes, of which {NAME_BYTES - ROOM_IN_NAMES} can be used"
    longest = max(map(len, folders), default=0)
    return f"a folder's name is too long: {longest} bytes of {NAME_BYTES}" if longest > NAME_BYTES else None
