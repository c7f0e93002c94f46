"""What a reader of a dataset hands over, and how it reports files that are missing or wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from metaprune_cli.config import DataSettings
from metaprune_cli.data.image_split import Images, MemoryImages
from metaprune_cli.errors import CorruptFileError, InputError

Part = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class Source:
    """The images of one part of a dataset, their classes (int64, one per image) and how many classes there are."""

    images: Images
    labels: Tensor
    num_classes: int


def in_memory(pixels: np.ndarray, labels: np.ndarray, num_classes: int, where: Path) -> Source:
    """A source of arrays read from ``where``: uint8 (n, c, h, w), and n whole numbers below ``num_classes``.

    Raises:
        CorruptFileError: no images, another shape or dtype, or a label out of range.
    """
    labels = np.asarray(labels).reshape(-1)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) != len(labels) or not len(labels):
        raise CorruptFileError(
            "The images in this file do not fit their labels.",
            expected="one label per image of 8 bits",
            got=f"images {pixels.dtype}{pixels.shape}, {len(labels)} labels",
            where=where,
        )
    if labels.dtype.kind not in "iu":
        raise CorruptFileError(
            "The labels in this file are not class numbers.",
            expected=f"whole numbers from 0 to {num_classes - 1}",
            got=f"{labels.dtype}, such as {str(labels[0])[:100]!r}",
            where=where,
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise CorruptFileError(
            "There are labels in this file that are not classes of its data set.",
            expected=f"whole numbers from 0 to {num_classes - 1}",
            got=f"{labels.dtype} from {labels.min()} to {labels.max()}",
            where=where,
        )
    return Source(MemoryImages(torch.tensor(pixels)), torch.tensor(labels.astype(np.int64)), num_classes)


def root_of(settings: DataSettings) -> Path:
    """The folder the images are in.

    Raises:
        InputError: it is not given, or is no folder.
    """
    if settings.data_root is None:
        raise InputError(
            f"Where the images of the data set {settings.dataset} are is not given.",
            expected="a folder",
            where="data.data_root",
            next_step="--data-root DIR, or data.data_root in params.yaml; --dataset digits needs no files",
        )
    root = Path(settings.data_root).expanduser()
    if not root.is_dir():
        raise InputError(
            "The data folder does not exist.", expected="a folder", where=root, next_step="check --data-root"
        )
    return root


def missing(dataset: str, root: Path, looked_for: Iterable[str], next_step: str) -> InputError:
    """The error for a folder that holds none of the layouts of ``dataset``."""
    return InputError(
        f"No {dataset} images were found.",
        expected="all of: " + "; or all of: ".join(looked_for),
        got=", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "an empty folder",
        where=root,
        next_step=next_step,
    )
