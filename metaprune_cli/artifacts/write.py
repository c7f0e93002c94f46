"""Writing an artifact: all of it or nothing, and never over something else."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
from torch import Tensor

from metaprune_cli.artifacts import format as layout
from metaprune_cli.artifacts.read import is_artifact, read_document
from metaprune_cli.errors import CorruptFileError, InputError


def write_artifact(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, Tensor],
    document: Mapping[str, Any],
    inputs: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write one artifact: a temporary sibling, flushed to disk, then renamed.

    Equal arguments give equal bytes. Missing folders on the way are made.

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
    data = safetensors.torch.save(_storable(tensors), metadata={layout.METADATA_KEY: text})
    end = layout.header_end(data)
    header, body = data[:end], memoryview(data)[end:]
    digest = layout.digest_of(header, body)
    _check_replaceable(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(path, [layout.replace_digest(header, layout.BLANK_DIGEST, digest), body])
    except OSError as error:
        raise InputError(
            "The file could not be written; nothing was left behind.",
            got=error.strerror or str(error),
            where=path,
            next_step="check the folder's permissions and the free space, or choose another place",
        ) from error
    return digest


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two of them in the same storage (safetensors refuses those)."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        if stored.untyped_storage().data_ptr() in seen:
            stored = stored.clone()
        seen.add(stored.untyped_storage().data_ptr())
        plain[name] = stored
    return plain


def _check_replaceable(path: Path, kind: str) -> None:
    """Refuse to replace anything but an artifact of the same kind."""
    if not os.path.lexists(path):
        return
    try:
        found = read_document(path)["kind"] if is_artifact(path) else "not an artifact of metaprune"
    except CorruptFileError:
        found = "a damaged artifact"
    if found != kind:
        raise InputError(
            "There is already something else at this place; it was not replaced.",
            expected=f"a new file, or an artifact of kind {kind}",
            got="a folder" if path.is_dir() else found,
            where=path,
            next_step="choose another place with -o, or remove what is there",
        )


def _write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    _remove_leftovers(path)
    sibling = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with sibling.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        sibling.replace(path)
    except BaseException:
        with suppress(OSError):
            sibling.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed while it wrote this file has left beside it."""
    for sibling in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        process = sibling.suffixes[-2].lstrip(".")
        if process.isdigit() and not _is_alive(int(process)):
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


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can do that for folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
