"""Files that are no state dicts, told by how they begin and named as what they are, each with the next step."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from metaprune_cli.artifacts import GIT_LFS
from metaprune_cli.errors import CorruptFileError, InputError

_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (GIT_LFS, "a pointer of Git LFS, a text in the place of the model", "`git lfs pull` fetches the model"),
    (b"\x89HDF", "in HDF5, as Keras writes it", "only PyTorch's models can be opened"),
    (b"GGUF", "in GGUF, for llama.cpp", "take the model's files in .safetensors or .pt"),
    (b"\x1f\x8b", "packed by gzip", "gunzip it"),
    (b"BZh", "packed by bzip2", "bunzip2 it"),
    (b"\xfd7zXZ", "packed by xz", "unxz it"),
    (b"\x93NUMPY", "one array of NumPy", "save all of the model's tensors: torch.save(model.state_dict(), path)"),
    (b"{", "a text in JSON", "give the file of the weights, or the folder that the two are in"),
    (b"<!DOCTYPE", "a web page: what was downloaded is not the model", "open the link in a browser, and save the file"),
    (b"<html", "a web page: what was downloaded is not the model", "open the link in a browser, and save the file"),
)
_BY_SUFFIX: Mapping[str, tuple[str, str]] = {
    ".onnx": ("a program in ONNX", "take the PyTorch model that it was exported from"),
    ".msgpack": ("in MessagePack, as Flax writes it", "only PyTorch's models can be opened"),
    ".tflite": ("a model of TensorFlow Lite", "only PyTorch's models can be opened"),
    ".tar": ("a tar archive", "unpack it"),
    ".distcp": (
        "a part of a checkpoint of torch.distributed.checkpoint",
        "make one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
    ),
}
_IN_ZIPS: tuple[tuple[str, str, str], ...] = (
    (
        "/constants.pkl",
        "a TorchScript program, which cannot be taken apart",
        "save torch.jit.load(path).state_dict() and name the architecture with --arch",
    ),
    (
        "/archive_format",
        "a program of torch.export, which cannot be taken apart",
        "save torch.export.load(path).state_dict and name the architecture with --arch",
    ),
    ("/saved_model.pb", "a model of TensorFlow", "only PyTorch's models can be opened"),
)
_STATE_DICT = "a state dict, as torch.save(model.state_dict(), path) writes it"


def check_kind(head: bytes, path: Path) -> None:
    """Refuse, by its first bytes or its suffix, what is known to be something else.

    Raises:
        CorruptFileError: it is.
    """
    if not head:
        raise CorruptFileError(
            "The file is empty.", expected=_STATE_DICT, where=path, next_step="copy or create it again"
        )
    named = [_BY_SUFFIX[path.suffix]] if path.suffix in _BY_SUFFIX else []
    begun = [(what, next_step) for start, what, next_step in _KINDS if head.lower().startswith(start.lower())]
    if found := begun + named:
        what, next_step = found[0]
        raise CorruptFileError(f"The file is {what}.", expected=_STATE_DICT, where=path, next_step=next_step)


def check_zip(path: Path, most_tensors: int | None) -> None:
    """Refuse archives that are larger inside than outside, which torch.save never makes, and those of other kinds.

    Raises:
        InputError: it is a program, or has more than ``most_tensors``.
        CorruptFileError: it is compressed, its records overlap, or it is damaged.
    """
    try:
        with ZipFile(path) as archive:
            records = archive.infolist()
    except (BadZipFile, ValueError, NotImplementedError, OSError, struct.error) as error:
        raise CorruptFileError(
            "The file is damaged, or it was not written by torch.save.",
            got=str(error),
            where=path,
            next_step="copy or create the file again",
        ) from error
    if records and all(record.filename.endswith(".npy") for record in records):
        raise InputError(
            "The file contains NumPy arrays.",
            expected=_STATE_DICT,
            where=path,
            next_step="torch.save({name: torch.from_numpy(array) for name, array in numpy.load(path).items()}, other)",
        )
    for name, what, next_step in _IN_ZIPS:
        if any(f"/{record.filename}".endswith(name) for record in records):
            raise InputError(f"The file is {what}.", expected=_STATE_DICT, where=path, next_step=next_step)
    tensors = sum("/data/" in record.filename for record in records)
    if most_tensors is not None and tensors > most_tensors:
        raise InputError(
            "The state dict does not match any known architecture.",
            expected=f"at most {most_tensors} tensors, with all that known architectures have and what trained them",
            got=f"{tensors} tensors",
            where=path,
            next_step="name the architecture: --arch package.module:factory --arch-arg key=value",
        )
    inside, outside = sum(record.file_size for record in records), path.stat().st_size
    if inside > outside or any(record.compress_type != ZIP_STORED for record in records):
        raise CorruptFileError(
            "The file is a compressed archive, or its records overlap: what is in it may be of any size.",
            expected="records as torch.save stores them",
            got=f"{inside} bytes in a file of {outside}",
            where=path,
            next_step="unpack it; what torch.save wrote is in it, if anything is",
        )
