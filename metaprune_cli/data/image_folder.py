"""Images in folders, one per class: ``train/CLASS/*.jpg``, ``test/CLASS/*.jpg`` and perhaps ``val/CLASS/*.jpg``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from metaprune_cli.artifacts import file_sha256
from metaprune_cli.config import DataSettings, Preprocessing
from metaprune_cli.data.digest import digest_of
from metaprune_cli.data.resizing import fitted
from metaprune_cli.data.source import Part, Source, missing, root_of
from metaprune_cli.errors import CorruptFileError, InputError, MetapruneError
from metaprune_cli.places import check_readable

DEFAULT_SIZE = 224
"""Of a side, where images are of several sizes and nobody asks for one."""
MOST_PIXELS = 89_478_485
"""Of one image; where Pillow begins to warn of files that are made to fill the memory."""
READ = 1000  # of the files at most, to tell a folder from another
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those that torchvision's ImageFolder reads."""


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images that are read, resized and cropped when they are needed; ``folder`` yields (uint8 (3, h, w), class).

    ``size`` is height and width.
    """

    folder: Any
    size: tuple[int, int]
    workers: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return 3, *self.size

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all files' names, class folder included, and sizes, and of what is in ``READ`` of them.

        To read a million files takes hours. Those that are read are spread over the whole folder.
        """
        start = len(self.folder.root) + 1
        paths = [path for path, _ in self.folder.samples]
        listed = "".join(f"{path[start:].replace(os.sep, '/')}\0{_bytes_in(path)}\0" for path in paths)
        return digest_of(listed, *(_content(path) for path in paths[:: -(-len(paths) // READ)]))

    def read(self, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """The images at the positions ``order``, as uint8 batches (n, 3, h, w)."""
        chosen = Subset(self.folder, order.tolist())
        for pixels in DataLoader(chosen, batch_size, num_workers=self.workers, collate_fn=_batch):
            if isinstance(pixels, Unreadable):
                raise pixels.error
            yield pixels


@dataclass(frozen=True)
class Unreadable:
    """What stands for an image that cannot be read: raised in a worker, its error would come as a traceback's text."""

    error: MetapruneError


def _batch(items: Sequence[tuple[Tensor | Unreadable, int]]) -> Tensor | Unreadable:
    """The pixels of a batch, or the first of its images that cannot be read."""
    pixels = []
    for picture, _ in items:
        if isinstance(picture, Unreadable):
            return picture
        pixels.append(picture)
    return torch.stack(pixels)


@dataclass(frozen=True)
class FittedPixels:
    """A picture as uint8 (3, height, width): resized, its middle kept; one that fits already is left alone."""

    size: tuple[int, int]
    preprocessing: Preprocessing

    def __call__(self, picture: Image.Image | Unreadable) -> Tensor | Unreadable:
        """The pixels of ``picture``; what could not be read stays what it is."""
        from torchvision.transforms import v2

        if isinstance(picture, Unreadable):
            return picture
        pixels: Tensor = v2.functional.pil_to_tensor(fitted(picture, self.size, self.preprocessing))
        return pixels


def own_size(root: Path) -> tuple[int, int] | None:
    """Height and width of a folder's training images, if all are of one size: ``READ`` of them are looked at."""
    paths = sorted(path for path in (root / "train").rglob("*") if path.suffix.lower() in SUFFIXES)
    sizes = {_size(path) for path in paths[:: max(1, -(-len(paths) // READ))]} - {None}
    return next(iter(sizes)) if len(sizes) == 1 else None


def _size(path: Path) -> tuple[int, int] | None:
    """Of one picture, of which the beginning is read; None where it cannot be: whoever reads it says so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                return (picture.height, picture.width) if picture.width * picture.height <= MOST_PIXELS else None
    except Exception:  # noqa: BLE001 - damaged images fail in every way there is
        return None


def read_image_folder(settings: DataSettings, part: Part) -> Source | None:
    """The images of one part; None for a validation part that is not there.

    Raises:
        InputError: the folder is missing or empty, or has classes that the training folder has not.
    """
    root = root_of(settings)
    if part == "val" and not (root / "val").is_dir():
        return None
    classes = _classes(root)
    _check_visited_once(root / part)
    size = (settings.side, settings.side) if settings.side else own_size(root) or (DEFAULT_SIZE, DEFAULT_SIZE)
    try:
        from torchvision.datasets import ImageFolder

        folder = ImageFolder(
            str(root / part), FittedPixels(size, settings.preprocessing), loader=_open_rgb, allow_empty=True
        )
    except FileNotFoundError:
        raise missing("image folder", root, [f"{part}/CLASS/*.jpg"], "put one folder for each class there") from None
    if not folder.samples:
        raise missing("image folder", root, [f"{part}/CLASS/*.jpg"], "put images into the class folders")
    unknown = sorted(set(folder.classes) - set(classes))
    if unknown:
        raise InputError(
            f"There are classes in {part}/ that train/ does not have.",
            expected=f"some of the {len(classes)} classes of train/",
            got=", ".join(unknown[:8]),
            where=root / part,
        )
    labels = torch.tensor([classes.index(folder.classes[label]) for label in folder.targets])
    return Source(FileImages(folder, size, settings.workers), labels, len(classes))


def class_folders(settings: DataSettings, part: Part) -> list[Path]:
    """The folders of one part, one for each class; what is in them is not looked at.

    Raises:
        InputError: there is none.
    """
    root = root_of(settings)
    found = [root / part / name for name in _classes(root)]
    if not any(folder.is_dir() for folder in found):
        raise missing("image folder", root, [f"{part}/CLASS/*.jpg"], "put one folder for each class there")
    return found


def _classes(root: Path) -> list[str]:
    """The names of the class folders of the training part, in the order that numbers them."""
    train = root / "train"
    names = sorted(entry.name for entry in train.iterdir() if entry.is_dir()) if train.is_dir() else []
    if not names:
        raise missing("image folder", root, ["train/CLASS/*.jpg"], "put one folder for each class into train/")
    return names


def _bytes_in(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a million paths take twice as long as objects
    except OSError:  # whoever reads it says so
        return None


def _content(path: str) -> str:
    try:
        return file_sha256(path)
    except InputError:  # as above
        return ""


def _open_rgb(path: str) -> Image.Image | Unreadable:
    """A picture of three colours, or why there is none."""
    return open_picture(path, "RGB")


def open_picture(path: str, mode: str | None = None) -> Image.Image | Unreadable:
    """A picture of 8 bits, converted to one of Pillow's modes, or why there is none."""
    try:
        check_readable(Path(path), "An image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of transparency, which is dropped anyway
            with Image.open(path) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError(f"{picture.width}x{picture.height} pixels")
                return _eight_bits(picture).convert(mode)
    except MetapruneError as error:
        return Unreadable(error)
    except Exception as error:  # noqa: BLE001 - damaged images fail in every way there is
        return Unreadable(
            CorruptFileError(
                "An image cannot be read.",
                expected=f"a picture of at most {MOST_PIXELS} pixels in a format that Pillow reads",
                got=f"{type(error).__name__}: {error}",
                where=path,
                next_step="replace the file, or remove it from the folder",
            )
        )


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8, which converting cuts off at 255 instead.

    Raises:
        ValueError: the pixels are numbers of unknown range.
    """
    if picture.mode == "F":
        raise ValueError("pixels are floating-point numbers, of which nothing says what is white")
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))


def _check_visited_once(part: Path) -> None:
    """Refuse links by which a folder would be read twice, or for ever.

    Raises:
        InputError: naming the first of them.
    """
    for class_folder in sorted(part.iterdir()) if part.is_dir() else ():
        seen: set[tuple[int, int]] = set()
        for folder, below, _ in os.walk(class_folder, followlinks=True):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                raise InputError(
                    "A class folder contains a folder twice, by a link.",
                    expected="every image once",
                    got=f"{folder} is {os.path.realpath(folder)}",
                    where=class_folder,
                    next_step="remove the link",
                )
            seen.add((status.st_dev, status.st_ino))
            below.sort()
