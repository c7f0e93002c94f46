"""Writing an artifact: all of it or nothing, and never over something else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from metaprune_cli.artifacts import format as layout
from metaprune_cli.artifacts.read import is_artifact, read_kind
from metaprune_cli.artifacts.replacing import replacing
from metaprune_cli.artifacts.tensors import Entry, arrange, bytes_of, dump_header
from metaprune_cli.errors import CorruptFileError, InputError


def write_artifact(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, Tensor],
    document: Mapping[str, Any],
    inputs: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write one artifact: a temporary sibling, flushed to disk, then renamed.

    Equal arguments give equal bytes. Missing folders on the way are made. Tensors go to the file one at a time; nothing
    is copied but those that are on another device or not contiguous.

    Args:
        path: the file to write; an artifact of the same kind is replaced.
        kind: one of ``KINDS``.
        tensors: what to store, any strides and devices; shared tensors are stored once for each name
            (see ``split_aliases``).
        document: further keys of the JSON document; no NaN, no times, no absolute paths.
        inputs: SHA-256 of the files this one was made from, by name.

    Returns:
        The artifact's digest, 64 hexadecimal digits.

    Raises:
        InputError: something that is not an artifact of this kind is in the way, or the file cannot be written.
    """
    if kind not in layout.KINDS:
        raise ValueError(f"unknown kind of artifact: {kind!r}")
    path = Path(path)
    own = {"kind": kind, "format_version": layout.FORMAT_VERSION, "digest": layout.BLANK_DIGEST, "inputs": dict(inputs)}
    text = layout.dump_document({**document, **own})
    entries, header = _header(tensors, text, path)
    _check_replaceable(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as sibling:
            return _write(sibling, header, entries, tensors)
    except OSError as error:
        raise InputError(
            "The file could not be written; nothing was left behind.",
            got=error.strerror or str(error),
            where=path,
            next_step="check the folder's permissions and the free space, or choose another place",
        ) from error


def _header(tensors: Mapping[str, Tensor], text: str, path: Path) -> tuple[list[Entry], bytes]:
    """Where every tensor goes, and the header with a blank digest."""
    try:
        entries = arrange(tensors)
        return entries, dump_header(entries, {layout.METADATA_KEY: text})
    except ValueError as error:
        raise InputError(
            "This cannot be stored in an artifact.",
            expected="dense tensors of the usual types, and names in Unicode",
            got=str(error),
            where=path,
        ) from error


def _write(path: Path, header: bytes, entries: list[Entry], tensors: Mapping[str, Tensor]) -> str:
    """Write a new file, and the digest into its header once all bytes are known; return it."""
    digest = hashlib.sha256(header)
    with path.open("xb") as file:
        file.write(header)
        for entry in entries:
            for chunk in bytes_of(tensors[entry.name]):
                digest.update(chunk)
                file.write(chunk)
        file.seek(0)
        file.write(layout.replace_digest(header, layout.BLANK_DIGEST, digest.hexdigest()))
    return digest.hexdigest()


def _check_replaceable(path: Path, kind: str) -> None:
    """Refuse to replace anything but an artifact of the same kind."""
    if not os.path.lexists(path):
        return
    try:
        found = read_kind(path) if is_artifact(path) else "not an artifact of metaprune"
    except CorruptFileError:
        found = "a damaged artifact"
    if found != kind:
        raise InputError(
            "A different file already exists there; it was not overwritten.",
            expected=f"a new file, or an artifact of kind {kind}",
            got="a folder" if path.is_dir() else found,
            where=path,
            next_step="choose another path with -o, or remove the existing file",
        )
