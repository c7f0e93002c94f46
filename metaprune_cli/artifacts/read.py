"""Reading artifacts: every byte is checked against the digest before anything is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from torch import Tensor

from metaprune_cli.artifacts import format as layout
from metaprune_cli.artifacts.schemas import check_contents
from metaprune_cli.artifacts.tensors import (
    LENGTH_BYTES,
    METADATA,
    check_entries,
    parse_header,
    read_header,
    read_tensors,
)
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.places import check_readable, unreadable

# Two independent marks, so that no single flipped bit turns an artifact into some other safetensors file.
_START = b'{"%s":{"%s":' % (METADATA.encode(), layout.METADATA_KEY.encode())
_FIELD = b'\\"format_version\\":'
_HEAD_BYTES = 1 << 20
GIT_LFS = b"version https://git-lfs"
"""How the text begins that stands for a file that was not fetched."""
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as torch.save writes",
    b"\x80": "a Python pickle, which can run code when it is opened",
    GIT_LFS: "a pointer of Git LFS, a text in the place of the file",
}


@dataclass(frozen=True, eq=False)
class Artifact:
    """What was in a file: its JSON document and its tensors (on the CPU), all of it covered by the digest.

    Tensors whose values nobody wanted are on meta.
    """

    kind: str
    version: int
    document: dict[str, Any]
    tensors: dict[str, Tensor]
    path: Path
    digest: str


def read_artifact(
    path: str | os.PathLike[str],
    kind: str | None = None,
    wanted: Callable[[Mapping[str, Any], str], bool] | None = None,
) -> Artifact:
    """Read an artifact and check it whole.

    The file is read once, each tensor to its own place, and hashed on the way: what is returned is what was checked,
    whatever happens to the file meanwhile, and nothing is in memory twice.

    Args:
        path: the file.
        kind: the kind it must be of; None for any.
        wanted: of a document (not checked yet) and a tensor's name, whether its values are needed; None for all.

    Raises:
        InputError: no such file, it cannot be opened, it does not fit in memory, or it is a sound artifact of another
            kind.
        CorruptFileError: not an artifact, damaged, of an unknown version or kind, or with fields that its kind cannot
            have (see ``schemas``).
    """
    path = Path(path)
    with _opened(path) as (file, size):
        header, document, said = _head(file, size, path)
        digest = hashlib.sha256(layout.replace_digest(header, document["digest"], layout.BLANK_DIGEST))
        with _explained(path):
            entries = check_entries(said, size - len(header))
            tensors = read_tensors(file, entries, digest.update, lambda name: wanted is None or wanted(document, name))
    if digest.hexdigest() != document["digest"]:
        raise CorruptFileError(
            "The file was changed or damaged after it was written.",
            expected=f"digest {document['digest']}",
            got=f"digest {digest.hexdigest()}",
            where=path,
            next_step="copy or create the file again",
        )
    if kind is not None and document["kind"] != kind:
        raise InputError(
            "The file is a different kind of artifact.",
            expected=f"kind {kind}",
            got=f"kind {document['kind']}",
            where=path,
            next_step="give a file of the right kind; `metaprune inspect` shows what a file is",
        )
    check_contents(document, tensors, path)
    return Artifact(document["kind"], document["format_version"], document, tensors, path, document["digest"])


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON document alone, from the header; the tensors are not read and the digest is not checked.

    Raises:
        InputError: no such file, or it cannot be opened.
        CorruptFileError: not an artifact, cut short, of an unknown version or kind, or with fields that its kind cannot
            have.
    """
    path = Path(path)
    with _opened(path) as (file, size):
        document = _head(file, size, path)[1]
    check_contents(document, {}, path)
    return document


def read_kind(path: str | os.PathLike[str]) -> str:
    """The kind alone, from a header that is checked for no more than that; errors are those of ``read_document``."""
    path = Path(path)
    with _opened(path) as (file, size):
        return str(_head(file, size, path)[1]["kind"])


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether the file bears the marks of an artifact, sound or damaged; False for anything else, or nothing."""
    path = Path(path)
    if unreadable(path) is not None:
        return False
    with _opened(path) as (file, _):
        head = file.read(_HEAD_BYTES)
    return head.startswith(_START, LENGTH_BYTES) or _FIELD in head


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it.

    Raises:
        InputError: no such file, or it cannot be opened.
    """
    with _opened(Path(path)) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedReader, int]]:
    """The open file and its size; what the system refuses, now or while it is read, is an InputError."""
    check_readable(path)
    try:
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(
            "The file cannot be read.",
            got=error.strerror or str(error),
            where=path,
            next_step="check the path and its permissions",
        ) from error


def _head(file: BufferedReader, size: int, path: Path) -> tuple[bytes, dict[str, Any], Mapping[str, Any]]:
    """The header, the document in it (version, kind and digest of a known form), and what it says of the tensors."""
    _refuse_foreign(file.read(LENGTH_BYTES + len(_START)), path)
    with _explained(path):
        header = read_header(file, size)
        metadata, said = parse_header(header)
        document = layout.parse_document(metadata)
    _check_version(document.get("format_version"), path)
    if document.get("kind") not in layout.KINDS:
        raise _corrupt(path, f"kind {document.get('kind')!r}", expected=f"one of the kinds {', '.join(layout.KINDS)}")
    if not isinstance(document.get("digest"), str):
        raise _corrupt(path, "no digest")
    return header, document, said


def _refuse_foreign(start: bytes, path: Path) -> None:
    """Say what kind of file it is instead, where that is known; an artifact's length may begin like a pickle."""
    for magic, description in _FOREIGN.items():
        if start.startswith(magic) and not start.startswith(_START, LENGTH_BYTES):
            raise CorruptFileError(
                "The file was not written by metaprune.",
                expected="a safetensors file written by metaprune",
                got=description,
                where=path,
                next_step="`git lfs pull` fetches the file"
                if magic == GIT_LFS
                else "for a model, use a command that takes MODEL, with --arch",
            )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the parts of a file do not allow, as errors about the file."""
    try:
        yield
    except ValueError as error:
        raise _corrupt(path, str(error)) from error
    except MemoryError as error:
        raise InputError("The file does not fit in memory.", got=str(error), where=path) from error


def _check_version(version: object, path: Path) -> None:
    if version == layout.FORMAT_VERSION and isinstance(version, int):
        return
    newer = isinstance(version, int) and version > layout.FORMAT_VERSION
    raise CorruptFileError(
        "This version of metaprune cannot read the file's format version.",
        expected=f"format version {layout.FORMAT_VERSION}",
        got=f"format version {version}",
        where=path,
        next_step="upgrade metaprune" if newer else "create the file again with this version of metaprune",
    )


def _corrupt(path: Path, got: str, expected: str = "an artifact written by metaprune") -> CorruptFileError:
    return CorruptFileError(
        "The file is damaged, or was not written by metaprune.",
        expected=expected,
        got=got,
        where=path,
        next_step="copy or create the file again",
    )
