"""Which images, and for which task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from metaprune_cli.config.choices import (
    Augmentation,
    BatchSize,
    Count,
    DatasetName,
    Fraction,
    Pixels,
    Processes,
    Seed,
    TaskName,
)
from metaprune_cli.config.flags import DATA, Flag
from metaprune_cli.config.preprocessing import NOTHING_SAID, Preprocessing
from metaprune_cli.config.restoration import AS_USUAL, RestorationSettings
from metaprune_cli.config_loader import Reference

AUGMENTED: Mapping[DatasetName, Augmentation] = MappingProxyType({"digits": "none", "svhn": "crop"})
"""How training images are usually varied; those of any other data set are shifted and mirrored."""
RESTORES: tuple[TaskName, ...] = ("super-resolution", "denoising")
"""The tasks whose images have no classes."""
USUALLY: Augmentation = "crop-flip"


@dataclass(frozen=True)
class DataSettings:
    """Section ``data``: which images, how they are split and augmented, and for which task.

    The task None is what the models' files say, then ``usual_task``, then classification; ``package.module:task`` is a
    user's own. A task that a settings file names is the usual one: what is said of a model in its own file goes before
    what is said of a folder. So it does before the preprocessing here. In super-resolution and denoising the side of
    the images is that of the patches a model is trained on.
    """

    dataset: Annotated[DatasetName, Flag("The data set.", DATA)] = "digits"
    data_root: Annotated[
        str | None, Flag("Folder that contains the images; not needed for digits and photos.", DATA, "DIR", kind=Path)
    ] = None
    image_size: Annotated[
        Pixels | None,
        Flag(
            "Side of the images, in pixels.",
            DATA,
            "N",
            default="their own, or 224 for folders with images of different sizes",
        ),
    ] = None
    split_seed: Seed = 0
    val_fraction: Fraction = 0.15
    train_limit: Count | None = None
    augment: Annotated[
        Augmentation, Flag("Augmentation of training images: shifts (crop) and mirroring (flip).", DATA)
    ] = "none"
    batch_size: Annotated[BatchSize, Flag("Batch size.", DATA, "N")] = 64
    workers: Annotated[
        Processes, Flag("Number of processes that load images; 0: load in the main process.", DATA, "N")
    ] = 0
    task: Annotated[
        TaskName | Annotated[str, Reference()] | None,
        Flag(
            "What the models do: a name from `metaprune list tasks`, or package.module:task.",
            DATA,
            "NAME",
            default="as stored in the model files",
        ),
    ] = None
    preprocessing: Preprocessing = NOTHING_SAID
    restoration: RestorationSettings = AS_USUAL
    usual_task: TaskName | Annotated[str, Reference()] | None = None

    @property
    def side(self) -> int | None:
        """Of the images, where somebody asks for one."""
        return self.image_size or self.preprocessing.image_size

    def of_a_folder(self) -> DataSettings:
        """The same where a folder alone is named: it holds images, unless a data set is meant that has files."""
        if self.dataset != "digits":
            return self
        return replace(self, dataset="images" if self.restores else "imagefolder")

    @property
    def restores(self) -> bool:
        """Whether the images are to be restored: they are patches, and have no classes."""
        return (self.task or self.usual_task) in RESTORES or self.dataset in ("photos", "images")
