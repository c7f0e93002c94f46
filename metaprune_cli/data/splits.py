"""Training, validation and test splits of every dataset, by name and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from metaprune_cli.config import DatasetName, DataSettings
from metaprune_cli.data.batch import Split
from metaprune_cli.data.cifar import CIFAR10, CIFAR100, cifar_files, read_cifar
from metaprune_cli.data.digest import digest_of
from metaprune_cli.data.digits import read_digits
from metaprune_cli.data.image_folder import class_folders, read_image_folder
from metaprune_cli.data.image_split import ImageSplit, MemoryImages, Preparation, stratified
from metaprune_cli.data.resizing import resized_squares
from metaprune_cli.data.source import Part, Source
from metaprune_cli.data.svhn import read_svhn, svhn_files
from metaprune_cli.errors import InputError


@dataclass(frozen=True)
class Splits:
    """What training may see of a dataset.

    Attributes:
        train: the samples to learn from.
        val: those by which epochs and plans are judged.
        input_shape: of one input with its batch of one: (1, channels, height, width); None where inputs are no single
            tensor, or differ.
        name: for messages.
        num_classes: where its samples are of classes.
    """

    train: Split
    val: Split
    input_shape: tuple[int, ...] | None
    name: str
    num_classes: int | None = None

    @property
    def item_shape(self) -> tuple[int, ...] | None:
        """Of one input, without the batch."""
        return None if self.input_shape is None else self.input_shape[1:]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all images and labels, and of how they are split: the same data elsewhere have the same.

        Of images in memory the pixels count, of image files the names, the sizes, and the contents of a thousand.
        """
        return digest_of(self.train.digest, self.val.digest)


@dataclass(frozen=True)
class Dataset:
    """A dataset.

    Attributes:
        about: what it is.
        layout: the files it is read from, below the data folder.
        find: those of one part, without opening them; an InputError says what is missing.
        read: one part of it; None where it has no such part.
        mean: of the pixels, by channel; they are normalised by it and by ``std``.
    """

    about: str
    layout: str
    find: Callable[[DataSettings, Part], list[Path]]
    read: Callable[[DataSettings, Part], Source | None]
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATASETS: dict[DatasetName, Dataset] = {
    "digits": Dataset(
        "handwritten digits, 1,797 grey images of 8x8, 10 classes",
        "none: it comes with scikit-learn",
        lambda *_: [],
        read_digits,
        (0.3053,),
        (0.3760,),
    ),
    "cifar10": Dataset(
        "CIFAR-10, 60,000 images of 32x32, 10 classes",
        "cifar-10-batches-bin/ or cifar-10-batches-py/",
        partial(cifar_files, CIFAR10),
        partial(read_cifar, CIFAR10),
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    ),
    "cifar100": Dataset(
        "CIFAR-100, 60,000 images of 32x32, 100 classes",
        "cifar-100-binary/ or cifar-100-python/",
        partial(cifar_files, CIFAR100),
        partial(read_cifar, CIFAR100),
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
    ),
    "svhn": Dataset(
        "Street View House Numbers, 99,289 images of 32x32, 10 classes",
        "train_32x32.mat and test_32x32.mat, perhaps in svhn/",
        svhn_files,
        read_svhn,
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
    ),
    "imagefolder": Dataset(
        "images of yours, or ImageNet: one folder for each class",
        "train/CLASS/*.jpg and test/CLASS/*.jpg, perhaps val/CLASS/*.jpg",
        class_folders,
        read_image_folder,
        (0.485, 0.456, 0.406),  # ImageNet's figures, which is what torchvision's weights were trained with
        (0.229, 0.224, 0.225),
    ),
}


def classified(settings: DataSettings) -> Dataset:
    """The data set, whose images have classes.

    Raises:
        InputError: they have none.
    """
    if settings.dataset not in DATASETS:
        raise InputError(
            f"The images of the data set {settings.dataset} have no classes.",
            expected=", ".join(DATASETS),
            got=settings.dataset,
            where="--dataset",
            next_step="--task super-resolution or --task denoising, or another data set",
        )
    return DATASETS[settings.dataset]


def load_splits(settings: DataSettings) -> Splits:
    """Training and validation images; the test files are not opened.

    ``settings.train_limit`` holds back all but so many training images, before validation is split off them. Where the
    dataset has a validation part of its own, that is the validation split.

    Raises:
        InputError: files are missing, or there are too few images to split.
        CorruptFileError: a file is damaged.
    """
    source = _read(settings, "train")
    train = _whole(source, settings)
    if settings.train_limit is not None:
        train = train.subset(settings.train_limit, settings.split_seed)
    own = classified(settings).read(settings, "val")
    if own is None:
        kept, split_off = stratified(train.labels[train.index], settings.val_fraction, settings.split_seed)
        train, val = train.at(kept), train.at(split_off)
    else:
        val = _whole(_resized(own, settings), settings)
    if not (len(train) and len(val)):
        raise InputError(
            "There are too few images to split off a validation set.",
            expected="at least one image in both",
            got=f"{len(train)} for training, {len(val)} for validation",
            where="data.val_fraction, data.train_limit",
            next_step="raise one of them",
        )
    return Splits(train, val, (1, *source.images.shape), settings.dataset, source.num_classes)


def load_test(settings: DataSettings) -> ImageSplit:
    """The test images; for ``eval`` alone.

    Raises:
        InputError: files are missing.
        CorruptFileError: a file is damaged.
    """
    return _whole(_read(settings, "test"), settings)


def _read(settings: DataSettings, part: Part) -> Source:
    try:
        source = classified(settings).read(settings, part)
    except InputError as error:
        if there := ", ".join(f"--dataset {name}" for name in _lying_there(settings, part)):
            expected, got, where = (error.details[name] for name in ("expected", "got", "where"))
            step = f"these are files for {there}"
            raise InputError(error.what, expected=expected, got=got, where=where, next_step=step) from error
        raise
    assert source is not None, f"{settings.dataset} has no {part} part"
    return _resized(source, settings)


def _lying_there(settings: DataSettings, part: Part) -> Iterator[str]:
    """The other data sets whose files are in the folder."""
    for name, other in DATASETS.items():
        if name != settings.dataset and settings.data_root is not None:
            with suppress(InputError):
                if other.find(replace(settings, dataset=name), part):
                    yield name


def _resized(source: Source, settings: DataSettings) -> Source:
    """Images in memory brought to the side that is asked for; images in files are resized as they are read."""
    size, images = settings.side, source.images
    if size is None or not isinstance(images, MemoryImages) or images.shape[1:] == (size, size):
        return source
    resized = resized_squares(images.pixels, size, settings.preprocessing)
    return replace(source, images=MemoryImages(resized, resized_from=images.digest))


def _whole(source: Source, settings: DataSettings) -> ImageSplit:
    dataset = classified(settings)
    said = settings.preprocessing.for_channels(source.images.shape[0])
    backwards = said.channels == "bgr"
    mean, std = (figures[::-1] if backwards else figures for figures in (dataset.mean, dataset.std))
    preparation = Preparation(said.mean or mean, said.std or std, settings.augment, backwards)
    return ImageSplit(source.images, source.labels, torch.arange(len(source.labels)), preparation)
