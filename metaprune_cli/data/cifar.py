"""CIFAR-10 and CIFAR-100 in both official layouts (https://www.cs.toronto.edu/~kriz/cifar.html).

torchvision's class reads neither the binary layout nor anything but the original pickles, and checks the test batch
when asked for training images. Here only the files of the part asked for are opened; nothing in them can run code; and
their content is validated, whoever wrote them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaprune_cli.config import DataSettings
from metaprune_cli.data.source import Part, Source, in_memory, missing, root_of
from metaprune_cli.errors import CorruptFileError

IMAGE_SHAPE = (3, 32, 32)
IMAGE_BYTES = 3 * 32 * 32
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """One official way to store a CIFAR: its usual folder, the files of each part, and the reader of one file."""

    folder: str
    files: dict[Part, tuple[str, ...]]
    read: Callable[[Path], Arrays]


@dataclass(frozen=True)
class Cifar:
    """One of the two datasets: its classes and layouts, the first one present being read."""

    name: str
    num_classes: int
    layouts: tuple[Layout, ...]


def read_cifar(cifar: Cifar, settings: DataSettings, part: Part) -> Source | None:
    """One part of a CIFAR, in whichever layout is in ``settings.data_root`` or in its usual folder below it.

    Raises:
        InputError: neither layout is there.
        CorruptFileError: a file is truncated, or is not what its name says.
    """
    if part == "val":
        return None
    layout, paths = _locate(cifar, root_of(settings), part)
    batches = [layout.read(path) for path in paths]
    pixels = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, *IMAGE_SHAPE)
    labels = np.concatenate([labels for _, labels in batches])
    return in_memory(pixels, labels, cifar.num_classes, paths[0].parent)


def cifar_files(cifar: Cifar, settings: DataSettings, part: Part) -> list[Path]:
    """The files of one part, none of which is opened.

    Raises:
        InputError: neither layout is there.
    """
    return _locate(cifar, root_of(settings), part)[1]


def _locate(cifar: Cifar, root: Path, part: Part) -> tuple[Layout, list[Path]]:
    for layout in cifar.layouts:
        for folder in (root, root / layout.folder):
            paths = [folder / name for name in layout.files[part]]
            if all(path.is_file() for path in paths):
                return layout, paths
    looked_for = [f"{layout.folder}/{{{','.join(layout.files[part])}}}" for layout in cifar.layouts]
    raise missing(cifar.name, root, looked_for, "unpack an archive of https://www.cs.toronto.edu/~kriz/cifar.html here")


def _binary(label_bytes: int) -> Callable[[Path], Arrays]:
    """Reader of records of ``label_bytes`` labels, the last of which counts, and 3072 pixels."""
    record = label_bytes + IMAGE_BYTES

    def read(path: Path) -> Arrays:
        raw = np.fromfile(path, np.uint8)
        if not raw.size or raw.size % record:
            raise CorruptFileError(
                "A CIFAR file is truncated or has a different layout.",
                expected=f"a multiple of {record} bytes",
                got=f"{raw.size} bytes",
                where=path,
                next_step="unpack the archive again",
            )
        records = raw.reshape(-1, record)
        return records[:, label_bytes:], records[:, label_bytes - 1]

    return read


def _python(label_key: str) -> Callable[[Path], Arrays]:
    """Reader of a pickled dictionary with ``data`` (n, 3072) and a list of labels."""

    def read(path: Path) -> Arrays:
        try:
            with path.open("rb") as file:
                batch = _ArraysOnly(file, encoding="latin1").load()
            pixels, labels = np.asarray(batch["data"]), np.asarray(batch[label_key])
            if pixels.dtype != np.uint8 or pixels.shape != (len(labels), IMAGE_BYTES):
                raise ValueError(f"data is {pixels.dtype}{pixels.shape} for {len(labels)} labels")
        except Exception as error:  # damaged pickles fail in every way there is
            raise CorruptFileError(
                "A CIFAR file is damaged, or is not a pickle of images.",
                expected=f"a dictionary with uint8 data (n, {IMAGE_BYTES}) and {label_key}",
                got=f"{type(error).__name__}: {error}",
                where=path,
                next_step="unpack the archive again",
            ) from error
        return pixels, labels

    return read


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as Python 2 and old protocols wrote them; any other codec would be looked for among the modules."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the file asks for the codec {encoding!r}, which is refused")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds containers, numbers, text and numpy arrays, and refuses everything else."""

    # Functions as numpy itself hands them to pickle: where they live has changed between versions.
    _allowed: dict[tuple[str, str], Any] = {  # noqa: RUF012 - a constant
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
        ("numpy.core.multiarray", "scalar"): np.int64(0).__reduce__()[0],
        ("numpy.core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is refused") from None


CIFAR10 = Cifar(
    "CIFAR-10",
    10,
    (
        Layout(
            "cifar-10-batches-bin",
            {"train": tuple(f"{name}.bin" for name in TRAIN_BATCHES), "test": ("test_batch.bin",)},
            _binary(label_bytes=1),
        ),
        Layout("cifar-10-batches-py", {"train": TRAIN_BATCHES, "test": ("test_batch",)}, _python("labels")),
    ),
)
CIFAR100 = Cifar(
    "CIFAR-100",
    100,
    (
        Layout("cifar-100-binary", {"train": ("train.bin",), "test": ("test.bin",)}, _binary(label_bytes=2)),
        Layout("cifar-100-python", {"train": ("train",), "test": ("test",)}, _python("fine_labels")),
    ),
)
