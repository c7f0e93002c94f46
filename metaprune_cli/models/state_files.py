"""Opening other people's model files: state dicts in PyTorch's and safetensors' formats, safely."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.artifacts import load_tensors
from metaprune_cli.errors import CorruptFileError, InputError

_NESTED_UNDER = ("state_dict", "model", "model_state_dict")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def read_states(path: Path, trust_pickle: bool = False) -> dict[str, Tensor] | nn.Module:
    """A file's state dict, unwrapped; or the module itself where a pickled one is trusted.

    Raises:
        InputError: no such file, or something else than a state dict is in it.
        CorruptFileError: damaged, of an unknown format, or a pickle with more than tensors that is not trusted.
    """
    content = _open(path, trust_pickle)
    while isinstance(content, Mapping):
        nested = next(
            (content[key] for key in _NESTED_UNDER if isinstance(content.get(key), Mapping | nn.Module)), None
        )
        if nested is None:
            return _unwrap(_checked(content, path))
        content = nested
    if isinstance(content, nn.Module):
        return content
    raise _not_a_state_dict(path, f"a {type(content).__name__}")


def _open(path: Path, trust_pickle: bool) -> object:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(
            "The file cannot be read.", got=error.strerror, where=path, next_step="check the path and its permissions"
        ) from error
    is_safetensors = head[8:] == b"{"  # its length comes first, and may begin like a pickle
    if head.startswith((_ZIP, _PICKLE)) and not is_safetensors:
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


def _open_pickle(path: Path, trust_pickle: bool) -> object:
    """What torch.save wrote, every storage read to its own place.

    Not mapped: a file that is cut while it is mapped kills the process, and one that changes changes the model.
    """
    _check_unpacked_size(path)
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


def _check_unpacked_size(path: Path) -> None:
    """Refuse an archive that unpacks to more than itself: torch.save compresses nothing, and a bomb does."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return  # an old format, or damaged, which torch.load tells
    if unpacked > path.stat().st_size:
        raise CorruptFileError(
            "The file is a compressed archive, or its parts overlap.",
            expected="an archive as torch.save writes it, uncompressed",
            got=f"{unpacked:,} bytes in a file of {path.stat().st_size:,}",
            where=path,
            next_step="save the state dict with torch.save again",
        )


def _unsafe_part(message: str) -> str:
    """What torch would not unpickle, out of its long explanation."""
    found = re.search(r"GLOBAL (\S+)", message)
    return f"an object of {found.group(1)}" if found else "something that is no tensor"


def _checked(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    others = [f"{key}: {type(value).__name__}" for key, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        raise _not_a_state_dict(path, "; ".join(others[:10]) + f" ({len(others)} in all)" if others else "nothing")
    return {str(name): tensor for name, tensor in content.items()}


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
