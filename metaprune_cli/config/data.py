"""Which images, and for which task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True)
class DataSettings:
    """Section ``data``: which images, how they are split and augmented, and for which task.

    The task None is what the models' files say, or classification; ``package.module:task`` is a user's own. The
    preprocessing that is said here goes before that of the models' files. In super-resolution and denoising the side of
    the images is that of the patches a model is trained on.
    """

    dataset: Annotated[DatasetName, Flag("Which images.", DATA)] = "digits"
    data_root: Annotated[
        str | None, Flag("Folder the images are in; digits and photos need none.", DATA, "DIR", kind=Path)
    ] = None
    image_size: Annotated[
        Pixels | None,
        Flag("Side of the images.", DATA, "N", default="their own; of folders with images of several sizes: 224"),
    ] = None
    split_seed: Seed = 0
    val_fraction: Fraction = 0.15
    train_limit: Count | None = None
    augment: Augmentation = "none"
    batch_size: BatchSize = 64
    workers: Processes = 0
    task: Annotated[
        TaskName | Annotated[str, Reference()] | None,
        Flag(
            "What models are for: a name of `metaprune list tasks`, or package.module:task.",
            DATA,
            "NAME",
            default="as the files of the models say",
        ),
    ] = None
    preprocessing: Preprocessing = NOTHING_SAID
    restoration: RestorationSettings = AS_USUAL

    @property
    def side(self) -> int | None:
        """Of the images, where somebody asks for one."""
        return self.image_size or self.preprocessing.image_size
