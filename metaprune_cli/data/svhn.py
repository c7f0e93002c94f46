"""Street View House Numbers, cropped digits (http://ufldl.stanford.edu/housenumbers): ``{train,test}_32x32.mat``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metaprune_cli.config import DataSettings
from metaprune_cli.data.source import Part, Source, in_memory, missing, root_of
from metaprune_cli.errors import CorruptFileError

MOST_IMAGES = 1_000_000
"""Compressed, an array of any size fits into a small file; the largest part of SVHN has 531,131 images."""


def read_svhn(settings: DataSettings, part: Part) -> Source | None:
    """One part of SVHN, from ``settings.data_root`` or ``svhn/`` below it.

    torchvision's class accepts the original files alone, by their md5; here the content is validated instead.

    Raises:
        InputError: the file is not there.
        CorruptFileError: it is damaged.
    """
    if part == "val":
        return None
    (path,) = svhn_files(settings, part)
    pixels, labels = _read_mat(path)
    return in_memory(pixels, labels % 10, 10, path)  # the file's label 10 is the digit 0


def svhn_files(settings: DataSettings, part: Part) -> list[Path]:
    """The file of one part, which is not opened.

    Raises:
        InputError: it is not there.
    """
    root, name = root_of(settings), f"{part}_32x32.mat"
    path = next((path for path in (root / name, root / "svhn" / name) if path.is_file()), None)
    if path is None:
        raise missing("SVHN", root, [name], "download it from http://ufldl.stanford.edu/housenumbers")
    return [path]


def _read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 3, 32, 32) and labels 1 to 10."""
    from scipy.io import loadmat, whosmat

    try:
        stated = {name: shape for name, shape, _ in whosmat(str(path))}  # before anything is unpacked
        if len(stated["X"]) != 4 or stated["X"][:3] != (32, 32, 3) or stated["X"][3] > MOST_IMAGES:
            raise ValueError(f"X {stated['X']}")
        content = loadmat(str(path), variable_names=("X", "y"))
        pixels, labels = content["X"], content["y"].reshape(-1)
        if pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3) or labels.min() < 1 or labels.max() > 10:
            raise ValueError(f"X {pixels.shape}, y from {labels.min()} to {labels.max()}")
    except Exception as error:  # damaged .mat files fail in every way there is
        raise CorruptFileError(
            "An SVHN file is damaged, or is not a MATLAB file of images.",
            expected="X (32, 32, 3, n) and y (n, 1) with labels from 1 to 10",
            got=f"{type(error).__name__}: {error}",
            where=path,
            next_step="download it again",
        ) from error
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels
