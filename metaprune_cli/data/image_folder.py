"""Images in folders, one per class: ``train/CLASS/*.jpg``, ``test/CLASS/*.jpg`` and perhaps ``val/CLASS/*.jpg``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from metaprune_cli.artifacts import file_sha256
from metaprune_cli.config import DataSettings
from metaprune_cli.data.digest import digest_of
from metaprune_cli.data.source import Part, Source, missing, root_of
from metaprune_cli.errors import CorruptFileError, InputError

DEFAULT_SIZE = 224
READ = 1000  # of the files at most, to tell a folder from another
CROP_RATIO = 256 / 224  # the usual evaluation on ImageNet: resize to 256, keep the central 224


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images that are read, resized and cropped when they are needed; ``folder`` yields (uint8 (3, s, s), class)."""

    folder: Any
    size: int
    workers: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return 3, self.size, self.size

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
        """The images at the positions ``order``, as uint8 batches (n, 3, s, s)."""
        chosen = Subset(self.folder, order.tolist())
        for pixels, _ in DataLoader(chosen, batch_size, num_workers=self.workers):
            yield pixels


@dataclass(frozen=True)
class SquarePixels:
    """A picture as uint8 (3, s, s): its shorter side resized, its centre kept; one that fits already is left alone."""

    size: int

    def __call__(self, picture: Image.Image) -> Tensor:
        """The pixels of ``picture``."""
        from torchvision.transforms import v2

        if picture.size != (self.size, self.size):
            picture = v2.functional.resize(picture, [round(self.size * CROP_RATIO)])
            picture = v2.functional.center_crop(picture, [self.size, self.size])
        pixels: Tensor = v2.functional.pil_to_tensor(picture)
        return pixels


def read_image_folder(settings: DataSettings, part: Part) -> Source | None:
    """The images of one part; None for a validation part that is not there.

    Raises:
        InputError: the folder is missing or empty, or has classes that the training folder has not.
    """
    root = root_of(settings)
    if part == "val" and not (root / "val").is_dir():
        return None
    classes = _classes(root)
    size = settings.image_size or DEFAULT_SIZE
    try:
        from torchvision.datasets import ImageFolder

        folder = ImageFolder(str(root / part), SquarePixels(size), loader=_open_rgb, allow_empty=True)
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


def _open_rgb(path: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files
        raise CorruptFileError("An image cannot be read.", got=str(error), where=path) from error
