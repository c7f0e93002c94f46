"""Opening other people's model files: state dicts in PyTorch's and safetensors' formats, safely."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from metaprune_cli.artifacts import GIT_LFS, load_tensors
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.models.plain_tensors import plain_tensors
from metaprune_cli.places import check_readable

_NESTED_UNDER = ("state_dict", "model", "model_state_dict")
_DEEPEST = 4  # a pickled dictionary can be inside itself
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def read_states(
    path: Path, trust_pickle: bool = False, most_tensors: int | None = None
) -> dict[str, Tensor] | nn.Module:
    """A file's state dict, unwrapped; or the module itself where a pickled one is trusted.

    Args:
        path: the file.
        trust_pickle: open pickles with more than tensors in them, which can run any code.
        most_tensors: of a file with more, nothing is read: PyTorch takes a second for every thousand.

    Raises:
        InputError: no such file, or something else than a state dict is in it.
        CorruptFileError: damaged, of an unknown format, or a pickle with more than tensors that is not trusted.
    """
    content = _open(path, trust_pickle, most_tensors)
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        nested = next(
            (content[key] for key in _NESTED_UNDER if isinstance(content.get(key), Mapping | nn.Module)), None
        )
        if nested is None:
            return _unwrap(plain_tensors(content, path))
        content = nested
    if isinstance(content, nn.Module):
        return content
    raise _not_a_state_dict(path, f"a {type(content).__name__}")


def _open(path: Path, trust_pickle: bool, most_tensors: int | None) -> object:
    check_readable(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(GIT_LFS))
    except OSError as error:
        raise InputError(
            "The file cannot be read.", got=error.strerror, where=path, next_step="check the path and its permissions"
        ) from error
    if head == GIT_LFS:
        raise CorruptFileError(
            "The file is a pointer of Git LFS, a text in the place of the model.",
            where=path,
            next_step="`git lfs pull` fetches the model",
        )
    is_safetensors = head[8:9] == b"{"  # its length comes first, and may begin like a pickle
    if head.startswith((_ZIP, _PICKLE)) and not is_safetensors:
        if head.startswith(_ZIP):
            _check_zip(path, most_tensors)
        return _open_pickle(path, trust_pickle)
    try:
        return load_tensors(path)
    except MemoryError as error:
        raise InputError("The file does not fit in memory.", got=str(error), where=path) from error
    except (ValueError, OSError) as error:
        raise CorruptFileError(
            "The file is neither a sound safetensors file nor one that torch.save wrote.",
            expected="an artifact of metaprune, or a state dict in .pt, .pth or .safetensors",
            got=str(error),
            where=path,
            next_step="copy or make the file again",
        ) from error


def _check_zip(path: Path, most_tensors: int | None) -> None:
    """Refuse archives that are larger inside than outside, which torch.save never makes, and those of TorchScript.

    Raises:
        InputError: it is a TorchScript program, or has more than ``most_tensors``.
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
            next_step="copy or make the file again",
        ) from error
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise InputError(
            "The file is a TorchScript program, which cannot be taken apart.",
            expected="a state dict, as torch.save(model.state_dict(), path) writes it",
            where=path,
            next_step="save torch.jit.load(path).state_dict() and name the architecture with --arch",
        )
    tensors = sum("/data/" in record.filename for record in records)
    if most_tensors is not None and tensors > most_tensors:
        raise InputError(
            "The architecture of this state dict cannot be any that is known.",
            expected=f"at most {most_tensors} tensors, with all that known architectures have and what trained them",
            got=f"{tensors} tensors",
            where=path,
            next_step="name it: --arch package.module:factory --arch-arg key=value",
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


def _open_pickle(path: Path, trust_pickle: bool) -> object:
    """What torch.save wrote, every storage read to its own place.

    Not mapped: a file that is cut while it is mapped kills the process, and one that changes changes the model.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files: said once more, and better, by what follows
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        raise CorruptFileError(
            "The file holds Python objects other than tensors, and opening those can run any code; or it is damaged.",
            expected="a state dict, as torch.save(model.state_dict(), path) writes it",
            got=_unsafe_part(str(error)),
            where=path,
            next_step="save the state dict instead; --trust-pickle opens it all the same, if you trust who made it",
        ) from error
    except Exception as error:
        raise CorruptFileError(
            "The file is damaged, or it was not written by torch.save.",
            got=str(error).partition(". ")[0] or type(error).__name__,
            where=path,
            next_step="copy or make the file again",
        ) from error


def _unsafe_part(message: str) -> str:
    """What torch would not unpickle, out of its long explanation."""
    found = re.search(r"GLOBAL (\S+)", message)
    return f"an object of {found.group(1)}" if found else "something that is no tensor"


def _unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers put before every name."""
    for prefix in (*_WRAPPERS, *_WRAPPERS):  # either may be inside the other
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _not_a_state_dict(path: Path, got: str) -> InputError:
    return InputError(
        "There is no state dict in the file.",
        expected=f"names and tensors, at the top or under {' or '.join(_NESTED_UNDER)}",
        got=got,
        where=path,
        next_step="save torch.save(model.state_dict(), path) and name the architecture with --arch",
    )
