"""Training, validation and test splits of photographs, for tasks that restore images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from metaprune_cli.config import DataSettings, PixelKind
from metaprune_cli.data.batch import drawn
from metaprune_cli.data.pairs import Pairs, read_pairs
from metaprune_cli.data.patches import Degradation, PatchSplit, WholeSplit
from metaprune_cli.data.photographs import LAYOUT, Photograph, tests, training, validation
from metaprune_cli.data.splits import Splits
from metaprune_cli.errors import InputError

SIDE = 48
"""Of a patch, where nobody asks for another."""
JUDGED_SIDE = 192
"""Of the middles of validation images: they are looked at after every epoch."""
EMBEDDED = "photos"
ABOUT: Mapping[str, tuple[str, str]] = {
    EMBEDDED: ("12 photographs to restore, of up to 741x512", "none: they come with scikit-image and scikit-learn"),
    "images": ("photographs of yours to restore, DIV2K, and the usual test sets", LAYOUT),
}
"""What the data sets are, and the files they are read from."""


@dataclass(frozen=True)
class Restored:
    """What the images of a task are: ``scale`` 1 is no super-resolution, ``degradation`` what networks are given."""

    pixels: PixelKind
    scale: int
    degradation: Degradation


def find_photographs(settings: DataSettings, part: str) -> list[Photograph]:
    """Those of one part, without opening them.

    Raises:
        InputError: there are none.
    """
    if part == "test":
        return [each for found in tests(settings, 1).values() for each in found]
    return training(settings, 1)


def has_training(settings: DataSettings) -> bool:
    """Whether there are images to learn from."""
    try:
        return bool(training(settings, 1))
    except InputError:
        return False


def load_restoration(settings: DataSettings, restored: Restored) -> Splits:
    """Patches to learn from and the middles of images to judge by; test images are not opened.

    Where the data set has no validation images, some training images are split off.

    Raises:
        InputError: there are no or too few images, they are smaller than a patch, or are not of the kind asked for.
        CorruptFileError: a file is damaged.
    """
    side = _side(settings)
    found, judged = _chosen(training(settings, restored.scale), settings), validation(settings, restored.scale)
    if not judged:
        found, judged = _split(found, settings)
    train, val = (_read(each, settings, restored) for each in (found, judged))
    _check_patches(train, side, settings)
    count = settings.restoration.patches
    patches = PatchSplit(train, side, torch.arange(count), restored.degradation, settings.augment)
    whole = WholeSplit(val.middles(JUDGED_SIDE), torch.arange(len(val)), restored.degradation)
    return Splits(patches, whole, input_shape(settings, restored), settings.dataset)


def load_without_training(settings: DataSettings, restored: Restored) -> Splits:
    """Splits of nothing, for a folder that holds test sets alone."""
    nothing = WholeSplit(Pairs((), (), (), restored.scale), torch.arange(0), restored.degradation)
    return Splits(nothing, nothing, input_shape(settings, restored), settings.dataset)


def load_restoration_tests(settings: DataSettings, restored: Restored) -> dict[str, WholeSplit]:
    """The test sets, by name, of whole images.

    Raises:
        InputError: there are none, or not those that are asked for.
        CorruptFileError: a file is damaged.
    """
    read = {name: _read(found, settings, restored) for name, found in tests(settings, restored.scale).items()}
    return {name: WholeSplit(pairs, torch.arange(len(pairs)), restored.degradation) for name, pairs in read.items()}


def input_shape(settings: DataSettings, restored: Restored) -> tuple[int, ...]:
    """Of a patch with its batch of one."""
    return (1, 1 if restored.pixels == "gray" else 3, _side(settings), _side(settings))


def check_dataset(settings: DataSettings, task: str) -> None:
    """Refuse data sets of other tasks, and preprocessing that images to restore do not go through.

    Raises:
        InputError: it is one.
    """
    if settings.dataset not in ABOUT:
        raise InputError(
            f"The images of the data set {settings.dataset} are not for the task {task}.",
            expected=" or ".join(ABOUT),
            got=settings.dataset,
            where="--dataset",
            next_step=f"--dataset {EMBEDDED} needs no files; --dataset images --data-root DIR takes yours",
        )
    said = settings.preprocessing
    odd: dict[str, Any] = {"crop": said.crop, "interpolation": said.interpolation, "channels": said.channels}
    if any(odd.values()):
        raise InputError(
            f"Images of the task {task} are neither resized nor turned round.",
            expected="mean and std at most",
            got=", ".join(f"{name} {value}" for name, value in odd.items() if value),
            where="data.preprocessing, or the model's document",
            next_step="leave them out",
        )


def _side(settings: DataSettings) -> int:
    return settings.side or SIDE


def _read(found: list[Photograph], settings: DataSettings, restored: Restored) -> Pairs:
    return read_pairs(found, restored.pixels, restored.scale, mixed=settings.dataset == EMBEDDED)


def _chosen(found: list[Photograph], settings: DataSettings) -> list[Photograph]:
    limit = settings.train_limit
    return found if limit is None else [found[p] for p in drawn(len(found), limit, settings.split_seed)]


def _split(found: list[Photograph], settings: DataSettings) -> tuple[list[Photograph], list[Photograph]]:
    if len(found) < 2:
        raise InputError(
            "There are too few images to split off a validation set.",
            expected="at least two training images, or images in val/",
            got=len(found),
            where=settings.data_root,
            next_step="add some",
        )
    count = min(max(1, round(settings.val_fraction * len(found))), len(found) - 1)
    second = set(drawn(len(found), count, settings.split_seed).tolist())
    return [each for p, each in enumerate(found) if p not in second], [found[p] for p in sorted(second)]


def _check_patches(train: Pairs, side: int, settings: DataSettings) -> None:
    small = [name for name, image in zip(train.names, train.inputs, strict=True) if min(image.shape[1:]) < side]
    if small:
        raise InputError(
            "Some training images are smaller than a patch.",
            expected=f"at least {side * train.scale} pixels a side",
            got=f"{len(small)}: {', '.join(small[:8])}",
            where=settings.data_root,
            next_step="use smaller patches (--image-size or data.image_size), or remove these images",
        )
