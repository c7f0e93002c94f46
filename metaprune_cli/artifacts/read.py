"""Reading artifacts: every byte is checked against the digest before anything is used."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from metaprune_cli.artifacts import format as layout
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.places import check_readable, unreadable

# Two independent marks, so that no single flipped bit turns an artifact into some other safetensors file.
_START = b'{"__metadata__":{"%s":' % layout.METADATA_KEY.encode()
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
    """What was in a file: its JSON document and its tensors (on the CPU), all of it covered by the digest."""

    kind: str
    version: int
    document: dict[str, Any]
    tensors: dict[str, Tensor]
    path: Path
    digest: str


def read_artifact(path: str | os.PathLike[str], kind: str | None = None) -> Artifact:
    """Read an artifact and check it whole.

    Args:
        path: the file.
        kind: the kind it must be of; None for any.

    Raises:
        InputError: no such file, it cannot be opened, or it is a sound artifact of another kind.
        CorruptFileError: not an artifact, damaged, or of an unknown version or kind.
    """
    path = Path(path)
    data = _read(path)
    end = layout.header_end(data)
    header, body = data[:end], memoryview(data)[end:]
    document = _document(header, end, path)
    blank = layout.replace_digest(header, document["digest"], layout.BLANK_DIGEST)
    found = layout.digest_of(blank, body)
    if found != document["digest"]:
        raise CorruptFileError(
            "The file was changed or damaged after it was written.",
            expected=f"digest {document['digest']}",
            got=f"digest {found}",
            where=path,
            next_step="copy or make the file again",
        )
    if kind is not None and document["kind"] != kind:
        raise InputError(
            "The file is an artifact of another kind.",
            expected=f"kind {kind}",
            got=f"kind {document['kind']}",
            where=path,
            next_step="give a file of the right kind; `metaprune inspect` shows what a file is",
        )
    try:
        tensors = aligned(safetensors.torch.load(data))
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise _corrupt(path, f"tensors that cannot be read: {error}") from error
    return Artifact(document["kind"], document["format_version"], document, tensors, path, document["digest"])


def aligned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in alphabetical order, each where PyTorch's allocator would put it; ``tensors`` is empty afterwards.

    In a file tensors lie anywhere, and the last bits of what a kernel computes can depend on the address.
    """
    return {name: tensors.pop(name).clone() for name in sorted(tensors)}


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON document alone, from the header; the tensors are not read and the digest is not checked.

    Raises:
        InputError: no such file, or it cannot be opened.
        CorruptFileError: not an artifact, cut short in its header, or of an unknown version or kind.
    """
    path = Path(path)
    length = _read(path, layout.LENGTH_BYTES)
    end = layout.header_end(length)
    if end > path.stat().st_size:
        return _document(_read(path, _HEAD_BYTES), end, path)
    return _document(_read(path, end), end, path)


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether the file bears the marks of an artifact, sound or damaged; False for anything else, or nothing."""
    path = Path(path)
    if unreadable(path) is not None:
        return False
    head = _read(path, _HEAD_BYTES)
    return head.startswith(_START, layout.LENGTH_BYTES) or _FIELD in head


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it.

    Raises:
        InputError: no such file, or it cannot be opened.
    """
    path = Path(path)
    check_readable(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path, limit: int = -1) -> bytes:
    check_readable(path)
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise _unreadable(path, error) from error


def _document(header: bytes, end: int, path: Path) -> dict[str, Any]:
    """The document of a header that should be ``end`` bytes long, its version, kind and digest of a known form."""
    ours = header.startswith(_START, layout.LENGTH_BYTES)  # the length before it may begin like a pickle
    for magic, description in _FOREIGN.items():
        if header.startswith(magic) and not ours:
            raise CorruptFileError(
                "The file is not an artifact of metaprune.",
                expected="a safetensors file written by metaprune",
                got=description,
                where=path,
                next_step="`git lfs pull` fetches the file"
                if magic == GIT_LFS
                else "for a model, use a command that takes MODEL, with --arch",
            )
    if len(header) < end:
        raise _corrupt(path, "a file that is cut short, or no safetensors file")
    try:
        document = layout.parse_document(header)
    except ValueError as error:
        raise _corrupt(path, str(error)) from error
    _check_version(document.get("format_version"), path)
    if document.get("kind") not in layout.KINDS:
        raise _corrupt(path, f"kind {document.get('kind')!r}", expected=f"one of the kinds {', '.join(layout.KINDS)}")
    if not isinstance(document.get("digest"), str):
        raise _corrupt(path, "no digest")
    return document


def _check_version(version: object, path: Path) -> None:
    if version == layout.FORMAT_VERSION and isinstance(version, int):
        return
    newer = isinstance(version, int) and version > layout.FORMAT_VERSION
    raise CorruptFileError(
        "The file's format version is not one that this metaprune reads.",
        expected=f"format version {layout.FORMAT_VERSION}",
        got=f"format version {version}",
        where=path,
        next_step="upgrade metaprune" if newer else "make the file again with this metaprune",
    )


def _corrupt(path: Path, got: str, expected: str = "an artifact written by metaprune") -> CorruptFileError:
    return CorruptFileError(
        "The file is damaged, or no artifact of metaprune.",
        expected=expected,
        got=got,
        where=path,
        next_step="copy or make the file again",
    )


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        "The file cannot be read.",
        got=error.strerror or str(error),
        where=path,
        next_step="check the path and its permissions",
    )
