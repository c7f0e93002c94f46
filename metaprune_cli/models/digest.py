"""What tells one model's files from another's: SHA-256 over all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from metaprune_cli.artifacts import file_sha256
from metaprune_cli.models.huggingface.folder import weight_files
from metaprune_cli.models.shards import is_index, parts_of
from metaprune_cli.places import CONFIG, is_pretrained


def model_sha256(path: Path) -> str:
    """SHA-256 of a file; of a model in several, over the name and the SHA-256 of each.

    Raises:
        InputError: one of them cannot be read.
        CorruptFileError: the index names files that are not in its folder.
    """
    if is_pretrained(path):
        files = [path / CONFIG, *weight_files(path)]
    elif is_index(path):
        files = [path, *parts_of(path)]
    else:
        return file_sha256(path)
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {file_sha256(file)}\n".encode())
    return whole.hexdigest()
