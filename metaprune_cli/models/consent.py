"""Consent: what a user has named on a command line may be imported again where a file beside it names it.

A note is kept, in a folder of the user's that nobody else can write to, of the name, the folder, and the digest of the
code. It holds for that name alone (``mynet:MyNet``, not all of ``mynet``), while the code is what it was, in that
folder, and for files in it or below: what comes from elsewhere is asked about as ever. What the code imports in its
turn is not looked at.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from metaprune_cli.errors import InputError
from metaprune_cli.models.importing import code_digest, lies_below
from metaprune_cli.private import NotPrivateError, keep, private_folder, read


def note_named(name: str) -> None:
    """Remember that a command line, in the working directory, has named code that lies there or below.

    Code that is installed is not noted, nor is any where the user has no folder that is private.
    """
    here = Path.cwd().resolve()
    digest = code_digest(name, here) if lies_below(name, here) else None
    if digest is not None:
        with suppress(NotPrivateError, OSError):
            keep(_note(name, here), f"{digest} {name}\n".encode())


def was_named(name: str, file: Path) -> bool:
    """Whether the user has named this code on a command line here, and the file that names it now lies here too.

    Raises:
        InputError: they have, and the code is another one by now.
    """
    here = Path.cwd().resolve()
    if not file.resolve().is_relative_to(here) or not lies_below(name, here):
        return False
    try:
        note = read(_note(name, here))
    except (NotPrivateError, OSError):
        return False
    if note is None:
        return False
    if note != f"{code_digest(name, here)} {name}\n".encode():
        raise InputError(
            "The code that this file names has changed since you last named it on a command line here.",
            expected="the code as it was",
            got=name,
            where=file,
            next_step=f"if the change is yours, name it again: --arch {name}; or --allow-import",
        )
    return True


def _note(name: str, folder: Path) -> Path:
    """The file of a note: its name gives nothing away, and holds no text of anybody's."""
    return private_folder("state") / f"named-{hashlib.sha256(os.fsencode(folder) + b'|' + name.encode()).hexdigest()}"
