"""Opening other people's model files: state dicts in PyTorch's and safetensors' formats, safely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from metaprune_cli.artifacts import GIT_LFS, load_tensors
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.models.nesting import chosen
from metaprune_cli.models.other_files import check_kind, check_zip
from metaprune_cli.models.pickles import open_pickle
from metaprune_cli.models.plain_tensors import plain_tensors
from metaprune_cli.models.shards import check_whole, is_index, parts_of
from metaprune_cli.places import check_readable

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


@dataclass(frozen=True, eq=False)
class StateFile:
    """What a file holds, and what was said about taking it."""

    content: dict[str, Tensor] | nn.Module
    notes: tuple[str, ...] = ()


def read_state_file(
    path: Path,
    trust_pickle: bool = False,
    most_tensors: int | None = None,
    key: str | None = None,
    home: str | None = None,
) -> StateFile:
    """A file's state dict, out of what is beside it; or the module itself where a pickled one is trusted.

    Args:
        path: the file, or the index of several.
        trust_pickle: open pickles with more than tensors in them, which can run any code.
        most_tensors: of a file with more, nothing is read: PyTorch takes a second for every thousand.
        key: which of several state dicts to take.
        home: the module that has what a pickled module calls ``__main__``.

    Raises:
        InputError: no such file, or something else than a state dict is in it.
        CorruptFileError: damaged, of an unknown format, or a pickle with more than tensors that is not trusted.
    """
    if is_index(path):
        return _of_parts(path, trust_pickle, most_tensors, key)
    check_whole(path)
    part, notes = chosen(_open(path, trust_pickle, most_tensors, home), path, key)
    return StateFile(part if isinstance(part, nn.Module) else plain_tensors(part, path), tuple(notes))


def _of_parts(index: Path, trust_pickle: bool, most_tensors: int | None, key: str | None) -> StateFile:
    """The tensors of all files that an index names."""
    together: dict[str, Tensor] = {}
    files = parts_of(index)
    for file in files:
        part, _ = chosen(_open(file, trust_pickle, most_tensors, None), file)
        if isinstance(part, nn.Module):
            raise InputError("One part of the model is a pickled module.", expected="a state dict", where=file)
        together.update(plain_tensors(part, file))
    whole, notes = chosen(together, index, key)
    assert not isinstance(whole, nn.Module)
    return StateFile(dict(whole), (f"using all {len(files)} files of the model", *notes))


def _open(path: Path, trust_pickle: bool, most_tensors: int | None, home: str | None) -> object:
    check_readable(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(GIT_LFS))
    except OSError as error:
        raise InputError(
            "The file cannot be read.", got=error.strerror, where=path, next_step="check the path and its permissions"
        ) from error
    is_safetensors = head[8:9] == b"{"  # its length comes first, and may begin like anything
    if not is_safetensors:
        check_kind(head, path)
    if head.startswith((_ZIP, _PICKLE)) and not is_safetensors:
        if head.startswith(_ZIP):
            check_zip(path, most_tensors)
        return open_pickle(path, trust_pickle, home)
    try:
        return load_tensors(path)
    except MemoryError as error:
        raise InputError("The file does not fit in memory.", got=str(error), where=path) from error
    except (ValueError, OSError) as error:
        raise CorruptFileError(
            "The file is neither a valid safetensors file nor one written by torch.save.",
            expected="a file written by metaprune, or a state dict in .pt, .pth or .safetensors",
            got=str(error),
            where=path,
            next_step="copy or create the file again",
        ) from error
