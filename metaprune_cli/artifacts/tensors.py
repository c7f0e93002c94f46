"""Where each tensor lies in a safetensors file, and moving them between file and memory without a second copy.

The header is bounded and checked before anything is allocated for what it promises: the tensors it names must fill the
rest of the file, each byte once. Elements are little-endian, as in memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.artifacts.strict_json import check_brackets, parse_json

LENGTH_BYTES = 8
METADATA = "__metadata__"
MAX_HEADER_BYTES = 1 << 24
"""What anybody's file can make us parse. The graph of a network of 1,200 tensors has a header of 0.5 MB."""
MAX_DIMENSIONS = 64
CHUNK_BYTES = 1 << 20  # small enough to be still in the cache when it is hashed

DTYPES: Mapping[str, torch.dtype] = {
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F32": torch.float32,
    "U32": torch.uint32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The names of the types, in the order in which safetensors stores them: the most strictly aligned first."""
_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Update = Callable[[bytes | memoryview], object]
"""Is told all bytes in the order of the file; a digest's ``update``."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: bytes ``begin`` to ``end`` behind the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def arrange(tensors: Mapping[str, Tensor]) -> list[Entry]:
    """Where safetensors would put these tensors.

    Raises:
        ValueError: there is no name for the type of one of them.
    """
    if unknown := [f"{name}: {tensor.dtype}" for name, tensor in tensors.items() if tensor.dtype not in _RANK]:
        raise ValueError(f"tensors of types that safetensors does not have: {', '.join(unknown[:10])}")
    entries: list[Entry] = []
    end = 0
    for name in sorted(tensors, key=lambda name: (_RANK[tensors[name].dtype], name)):
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        entries.append(Entry(name, tensor.dtype, tuple(tensor.shape), begin, end))
    return entries


def dump_header(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """A file's header, its length included, byte for byte as safetensors writes it.

    Raises:
        ValueError: longer than what is read, or a text is not Unicode (it holds half of a surrogate pair).
    """
    content: dict[str, Any] = {METADATA: dict(metadata)}
    for entry in entries:
        offsets = [entry.begin, entry.end]
        content[entry.name] = {"dtype": _NAMES[entry.dtype], "shape": entry.shape, "data_offsets": offsets}
    said = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    check_brackets(said)
    text = said.encode("utf-8")
    text += b" " * (-len(text) % LENGTH_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(text):,} bytes; {MAX_HEADER_BYTES:,} are read")
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def read_header(file: BufferedReader, size: int) -> bytes:
    """The header of a file of ``size`` bytes, its length included.

    Raises:
        ValueError: it is longer than the file, or than ``MAX_HEADER_BYTES``.
    """
    file.seek(0)
    length = file.read(LENGTH_BYTES)
    promised = int.from_bytes(length, "little")
    if len(length) < LENGTH_BYTES or promised > size - LENGTH_BYTES:
        raise ValueError("a file that is cut short, or no safetensors file")
    if promised > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {promised:,} bytes; {MAX_HEADER_BYTES:,} are read")
    header = length + file.read(promised)
    if len(header) < LENGTH_BYTES + promised:
        raise ValueError("a file that is cut short")
    return header


def parse_header(header: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The metadata, and what is said of the tensors, by their names (see :func:`check_entries`).

    Raises:
        ValueError: it is no such JSON.
    """
    content = parse_json(header[LENGTH_BYTES:])
    if not isinstance(content, dict):
        raise ValueError("a header that is not a JSON object")
    metadata = content.pop(METADATA, {})
    if not isinstance(metadata, dict):
        raise ValueError("metadata that are not a JSON object")
    return metadata, content


def check_entries(said: Mapping[str, Any], body: int) -> list[Entry]:
    """The tensors in the order in which they fill the ``body`` bytes behind the header.

    Raises:
        ValueError: they do not, or one of them contradicts itself.
    """
    entries = sorted((_entry(*named) for named in said.items()), key=lambda entry: (entry.begin, entry.end))
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise ValueError(f"bytes that belong to no tensor, or to two, before {entry.name!r}")
        end = entry.end
    if end != body:
        raise ValueError(f"tensors of {end:,} bytes where there are {body:,}")
    return entries


def read_tensors(
    file: BufferedReader, entries: Iterable[Entry], update: Update, wanted: Callable[[str], bool]
) -> dict[str, Tensor]:
    """Read the tensors from where the file stands, in one pass.

    Each is read to where PyTorch's allocator puts it, in alphabetical order: in a file it lies anywhere, and the last
    bits of what a kernel computes can depend on the address.

    Args:
        file: a file that stands behind its header.
        entries: what is there, in order.
        update: is told every byte that is read, and what it is told is what is returned.
        wanted: the names of the tensors to keep; the others are returned on meta.

    Raises:
        ValueError: the file ends before the tensors do.
        MemoryError: there is no memory for them.
    """
    entries = list(entries)
    scratch = memoryview(bytearray(CHUNK_BYTES))
    tensors = {entry.name: _empty(entry, wanted(entry.name)) for entry in sorted(entries, key=lambda e: e.name)}
    for entry in entries:
        tensor = tensors[entry.name]
        for part in _blanks(entry, scratch) if tensor.is_meta else _chunks(tensor):
            if file.readinto(part) != len(part):
                raise ValueError("a file that is cut short")
            update(part)
    return tensors


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of any safetensors file, somebody else's too.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not one, or damaged.
        MemoryError: there is no memory for it.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = read_header(file, size)
        entries = check_entries(parse_header(header)[1], size - len(header))
        return read_tensors(file, entries, lambda _: None, lambda _: True)


def bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of any dense tensor as they are stored, row-major, some at a time.

    Copied, if it has to be, only for as long as it takes.
    """
    yield from _chunks(tensor.detach().cpu().resolve_conj().resolve_neg().contiguous())


def _chunks(tensor: Tensor) -> Iterator[memoryview]:
    """The memory of a contiguous tensor, to be read or written, some at a time."""
    whole = tensor.reshape(-1).view(torch.uint8).numpy().data
    for start in range(0, len(whole), CHUNK_BYTES):
        yield whole[start : start + CHUNK_BYTES]


def _blanks(entry: Entry, scratch: memoryview) -> Iterator[memoryview]:
    """As many bytes as a tensor has, always the same memory."""
    for start in range(entry.begin, entry.end, CHUNK_BYTES):
        yield scratch[: min(CHUNK_BYTES, entry.end - start)]


def _empty(entry: Entry, wanted: bool) -> Tensor:
    try:
        return torch.empty(entry.shape, dtype=entry.dtype, device="cpu" if wanted else "meta")
    except RuntimeError as error:
        raise MemoryError(f"no memory for {entry.end - entry.begin:,} bytes of {entry.name!r}") from error


def _entry(name: str, said: Any) -> Entry:
    """One tensor, its type, shape and place checked against each other.

    Raises:
        ValueError: saying what does not hold.
    """
    if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"no type, shape and place of {name!r}")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!r} of an unknown type")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or math.prod(max(n, 1) for n in shape) >= 1 << 63:
        raise ValueError(f"{name!r} of an impossible shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name!r} at an impossible place")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{name!r} in {end - begin:,} bytes, which are not those of its shape")
    return Entry(name, DTYPES[dtype], tuple(shape), begin, end)


def _are_sizes(value: Any) -> bool:
    """Whether it is a list of whole numbers that a file can have."""
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 1 << 63 for number in value)
