"""Photographs for restoration: which files they are, in any of the layouts in which people keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from metaprune_cli.config import DataSettings
from metaprune_cli.data.image_folder import SUFFIXES
from metaprune_cli.data.source import Part, root_of
from metaprune_cli.errors import InputError

TRAIN = ("DIV2K_train_HR", "train", "Train400", "BSD400", "WED")
VALIDATION = ("DIV2K_valid_HR", "val")
TESTS = (
    "Set5",
    "Set14",
    "B100",
    "BSD100",
    "Urban100",
    "Manga109",
    "Set12",
    "BSD68",
    "CBSD68",
    "Kodak24",
    "McMaster",
    "test",
)
TEST_LAYOUT = "NAME/*.png or NAME/HR/*.png, with NAME/LR_bicubic/X2/*.png or without"
LAYOUT = f"{', '.join(f'{name}/' for name in TRAIN[:3])} or images; {', '.join(TESTS[:4])}, ... or test/"

_PHOTOS = {
    "train": (
        *("china.jpg", "flower.jpg", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
        *("brick.png", "gravel.png", "chelsea.png"),
    ),
    "val": ("coins.png", "grass.png"),
    "test": ("astronaut.png", "camera.png"),
}
"""Of each part. The right picture of the motorcycle is a twin of the left one, and left out."""
_OF_SKLEARN = ("china.jpg", "flower.jpg")


@dataclass(frozen=True)
class Photograph:
    """One image file, with the small version that belongs to it where there is one."""

    path: Path
    small: Path | None = None

    @property
    def name(self) -> str:
        """Of the file, without its ending."""
        return self.path.stem


def embedded(part: Part) -> list[Photograph]:
    """Those of one part that come with scikit-image and scikit-learn; never others, whatever their versions bring.

    Raises:
        InputError: scikit-image is not installed.
    """
    if find_spec("skimage") is None:
        raise InputError(
            "The photos come with scikit-image, which is not installed.",
            expected="the package scikit-image",
            where="--dataset photos",
            next_step="pip install 'metaprune[restoration]'",
        )
    folders = {True: _folder_of("sklearn") / "datasets" / "images", False: _folder_of("skimage") / "data"}
    return [Photograph(folders[name in _OF_SKLEARN] / name) for name in _PHOTOS[part]]


def _folder_of(package: str) -> Path:
    """Where a package lies, without importing it, which takes seconds."""
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def training(settings: DataSettings, scale: int) -> list[Photograph]:
    """Those to learn from.

    Raises:
        InputError: there are none.
    """
    if settings.dataset == "photos":
        return embedded("train")
    root = root_of(settings)
    folder = next((root / name for name in TRAIN if _images(root / name)), root)
    found = _images(folder)
    if not found:
        raise InputError(
            "There are no images to train on.",
            expected=f"images in one of the folders {', '.join(TRAIN)}, or in this folder itself",
            got=_listed(root),
            where=root,
            next_step="put images there, or choose another folder with --data-root",
        )
    return _with_small(folder, found, scale)


def validation(settings: DataSettings, scale: int) -> list[Photograph]:
    """Those to judge by; none where they have to be split off the training images."""
    if settings.dataset == "photos":
        return embedded("val")
    root = root_of(settings)
    folder = next((root / name for name in VALIDATION if _images(root / name)), None)
    return [] if folder is None else _with_small(folder, _images(folder), scale)


def tests(settings: DataSettings, scale: int) -> dict[str, list[Photograph]]:
    """The test sets, by name: those that are asked for, or all known ones that are there.

    Raises:
        InputError: some of those that are asked for are not there, or none is.
    """
    asked = settings.restoration.tests
    if settings.dataset == "photos":
        if asked and asked != ("photos",):
            raise _missing(asked, Path("photos"), "photos: its test images are one set")
        return {"photos": embedded("test")}
    root = root_of(settings)
    found = {name: images for name in asked or TESTS if (images := _test_set(root, name, scale))}
    if missing := [name for name in asked if name not in found]:
        raise _missing(missing, root, _listed(root))
    if not found:
        raise _missing(TESTS, root, _listed(root))
    return found


def _test_set(root: Path, name: str, scale: int) -> list[Photograph]:
    for folder in (root / name / "HR", root / name, root / "benchmark" / name / "HR"):
        if images := _images(folder):
            return _with_small(folder, images, scale)
    return []


def _images(folder: Path) -> list[Path]:
    """The image files of a folder, by name; not those of folders in it."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _with_small(folder: Path, images: Sequence[Path], scale: int) -> list[Photograph]:
    """With their small versions, where there is a folder of them for this scale: one for each.

    Raises:
        InputError: some are missing there.
    """
    small = folder.parent / f"{folder.name.removesuffix('HR')}LR_bicubic" / f"X{scale}"
    if scale == 1 or not (folder.name.endswith("HR") and small.is_dir()):
        return [Photograph(path) for path in images]
    by_stem = {path.stem.removesuffix(f"x{scale}"): path for path in _images(small)}
    if missing := [path.name for path in images if path.stem not in by_stem]:
        raise InputError(
            "Some images have no low-resolution version.",
            expected=f"one for each image of {folder.name}/, with the same name, with or without x{scale} at the end",
            got=f"none for {len(missing)} of {len(images)}: {', '.join(missing[:8])}",
            where=small,
            next_step="add them, or remove the folder; they are then computed by bicubic downscaling",
        )
    return [Photograph(path, by_stem[path.stem]) for path in images]


def _missing(names: Iterable[str], root: Path, got: str) -> InputError:
    return InputError(
        "There are no test images.",
        expected=f"images in {', '.join(names)}: {TEST_LAYOUT}",
        got=got,
        where=root,
        next_step="put the test sets there, or name their folders with --test-set NAME",
    )


def _listed(root: Path) -> str:
    return ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "an empty folder"
