"""Models in several files: an index in JSON says in which of the files beside it each tensor lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from metaprune_cli.artifacts.strict_json import parse_json
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.places import INDEX_SUFFIX, check_readable

MOST_BYTES = 1 << 26
"""Of a configuration or an index."""
_LISTED = 10
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.[a-z]+)")


def is_index(path: Path) -> bool:
    """Whether a path is called as indices are: ``model.safetensors.index.json``, ``pytorch_model.bin.index.json``."""
    return path.name.endswith(INDEX_SUFFIX)


def parts_of(index: Path) -> list[Path]:
    """The files that an index names, which lie beside it.

    Raises:
        InputError: the index cannot be read.
        CorruptFileError: it is no index, or names files that are not in its folder.
    """
    named = read_json(index).get("weight_map")
    files = sorted({str(value) for value in named.values()}) if isinstance(named, dict) else []
    wrong = [file for file in files if Path(file).name != file or not (index.parent / file).is_file()]
    if wrong or not files:
        raise CorruptFileError(
            "The index of the weights names files outside its folder.",
            expected="names of files beside it",
            got=", ".join(wrong[:_LISTED])[:400] or "none",
            where=index,
            next_step="copy the whole folder again",
        )
    return [index.parent / file for file in files]


def check_whole(path: Path) -> None:
    """Refuse one of several files of a model.

    Raises:
        InputError: the name is that of a part, as in ``model-00001-of-00002.safetensors``.
    """
    found = _PART.fullmatch(path.name)
    if found and int(found[2]) > 1:
        index = path.with_name(found[1] + found[3] + INDEX_SUFFIX)
        raise InputError(
            f"The file is one of the {int(found[2])} that a model is in.",
            expected=f"the index of them all, {index.name}",
            got=path.name,
            where=path,
            next_step=f"give {index}" if index.exists() else f"copy {index.name} and the other parts beside it",
        )


def read_json(path: Path) -> dict[str, Any]:
    """An object in JSON that is no larger than a configuration or an index can be.

    Raises:
        InputError: it cannot be read.
        CorruptFileError: it is something else.
    """
    check_readable(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (ValueError, OSError, RecursionError) as error:
        raise CorruptFileError(
            "The file was not written by save_pretrained.",
            expected="a JSON object",
            got=str(error)[:200],
            where=path,
            next_step="copy or make the folder again",
        ) from error
    return content
