"""Which images the models of one call take: what the user says, or what their files do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaprune_cli.artifacts import is_artifact, read_document
from metaprune_cli.config import DataSettings, Preprocessing
from metaprune_cli.errors import InputError

KEY = "preprocessing"
"""Of the document of a model or a graph; absent, images are as the data set has them."""
_FILES = ("imagefolder", "photos", "images")
"""Data sets whose images are read in any size."""


def with_preprocessing(data: DataSettings, files: Sequence[Path], said: Preprocessing) -> DataSettings:
    """The settings with the one preprocessing that all files and the user agree on.

    Images of a folder get the side that the models' files state; any other image keeps its own where nobody asks.

    Args:
        data: the settings; what the files say goes before them, and ``said`` before both.
        files: of models or graphs.
        said: by the user.

    Raises:
        InputError: models take different images; what each takes is listed.
    """
    documents = {path: read_document(path) if is_artifact(path) else {} for path in files}
    own = {path: asked(data, document, said) for path, document in documents.items()}
    found = next(iter(own.values()), said.over(data.preprocessing))
    if any(other != found for other in own.values()):
        raise InputError(
            "These models take images in different ways, and this command reads them once for all.",
            expected="one preprocessing",
            got="\n".join(f"{path}: {in_words(each)}" for path, each in own.items()),
            next_step="give them one by one, or say it for all of them: --mean, --std, --image-size, --interpolation",
        )
    sides = {_stated_side(document) for document in documents.values()}
    data = replace(data, preprocessing=found)
    if data.dataset in _FILES and data.side is None and len(sides) == 1:
        return replace(data, image_size=sides.pop())
    return data


def asked(data: DataSettings, document: Mapping[str, Any], said: Preprocessing) -> Preprocessing:
    """What one model takes: as the user says, else its document, else the settings."""
    return said.over(Preprocessing.from_document(document.get(KEY))).over(data.preprocessing)


def in_words(said: Preprocessing) -> str:
    """For people, where nothing may be said as well."""
    return said.in_words() or "as the data set has them"


def _stated_side(document: Mapping[str, Any]) -> int | None:
    """Of the square images that a document says its model takes."""
    shape: Sequence[int] = (document.get("architecture") or {}).get("input_shape") or ()
    return shape[1] if len(shape) == 3 and shape[1] == shape[2] else None
