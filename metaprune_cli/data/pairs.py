"""Pairs of what a restoring network is given and what it should return: whole images of 8 bits in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.config import PixelKind
from metaprune_cli.data.digest import digest_of
from metaprune_cli.data.image_folder import Unreadable, open_picture
from metaprune_cli.data.photographs import Photograph
from metaprune_cli.errors import InputError

LEAST_SIDE = 16
"""In pixels, of images to measure by: the windows of SSIM are 11 wide, and a border may be left out."""
_MODES = {"gray": "L", "rgb": "RGB"}
_GRAY = ("L", "LA", "1", "La")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images of several sizes.

    Attributes:
        inputs: uint8 (c, h, w) each; what noise is added to, or the small versions.
        targets: uint8 (c, scale · h, scale · w) each; in denoising the inputs themselves.
        names: of the images.
        scale: 1 in denoising.
    """

    inputs: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    names: tuple[str, ...]
    scale: int = 1

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all pixels."""
        return digest_of(*self.targets, *(self.inputs if self.scale > 1 else ()))

    def at(self, positions: Sequence[int]) -> Pairs:
        """The images at these positions."""
        inputs, targets = (tuple(each[p] for p in positions) for each in (self.inputs, self.targets))
        return Pairs(inputs, targets, tuple(self.names[p] for p in positions), self.scale)

    def middles(self, side: int) -> Pairs:
        """The same, of each input the middle where it is longer than ``side``."""
        inputs = tuple(_middle(image, side, 1) for image in self.inputs)
        targets = tuple(_middle(image, side, self.scale) for image in self.targets)
        return Pairs(inputs, targets, self.names, self.scale)


def read_pairs(photographs: Sequence[Photograph], pixels: PixelKind, scale: int, *, mixed: bool = False) -> Pairs:
    """Images of files, and their small versions: those that there are, else made here.

    A gray image among colour ones becomes one with three equal channels, as Set14's do everywhere; colour becomes gray
    as in ITU-R 601.

    Args:
        photographs: the files.
        pixels: what they are read as.
        scale: of super-resolution; 1 without.
        mixed: gray images are meant to be read as colour ones, even if all of them are gray.

    Raises:
        InputError: colours are wanted and all images are gray, some are too small, or a small version does not fit.
        CorruptFileError: a file cannot be read.
    """
    opened = [_opened(each.path) for each in photographs]
    if pixels == "rgb" and not mixed and all(picture.mode in _GRAY for picture in opened):
        raise InputError(
            "The images are gray, but colour images are needed.",
            expected="images of three colours",
            got=f"{len(opened)} gray images, such as {photographs[0].path.name}",
            where=photographs[0].path.parent,
            next_step="--pixels gray with a network for gray images, or give colour images with --data-root",
        )
    targets = [_pixels(picture, pixels) for picture in opened]
    _check_sides(photographs, targets)
    names = tuple(each.name for each in photographs)
    if scale == 1:
        return Pairs(tuple(targets), tuple(targets), names)
    small = [None if each.small is None else _pixels(_opened(each.small), pixels) for each in photographs]
    _check_small(photographs, targets, small, scale)
    whole = [_cut(image, scale) for image in targets]
    inputs = tuple(shrunk(image, scale) if own is None else own for image, own in zip(whole, small, strict=True))
    return Pairs(inputs, tuple(whole), names, scale)


def shrunk(image: Tensor, scale: int) -> Tensor:
    """An image uint8 (c, h, w) made smaller as MATLAB's imresize does: bicubic, antialiased, edges mirrored."""
    border = 4 * scale
    mirrored = np.pad(image.numpy(), ((0, 0), (border, border), (border, border)), mode="symmetric")
    pixels = torch.from_numpy(mirrored)[None].double()
    height, width = image.shape[1] // scale + 8, image.shape[2] // scale + 8
    small = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return small[0, :, 4:-4, 4:-4].round().clamp(0, 255).to(torch.uint8)


def _opened(path: Path) -> Image.Image:
    picture = open_picture(str(path))
    if isinstance(picture, Unreadable):
        raise picture.error
    return picture


def _pixels(picture: Image.Image, pixels: PixelKind) -> Tensor:
    array = np.array(picture.convert(_MODES[pixels]), dtype=np.uint8)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _check_sides(photographs: Sequence[Photograph], images: Sequence[Tensor]) -> None:
    short = [
        f"{each.path.name} {_size(image)}"
        for each, image in zip(photographs, images, strict=True)
        if min(image.shape[1:]) < LEAST_SIDE
    ]
    if short:
        raise InputError(
            "Some images are too small.",
            expected=f"at least {LEAST_SIDE} pixels a side",
            got=", ".join(short[:8]),
            where=photographs[0].path.parent,
            next_step="remove them from the folder",
        )


def _check_small(
    photographs: Sequence[Photograph], images: Sequence[Tensor], small: Sequence[Tensor | None], scale: int
) -> None:
    wrong = [
        f"{each.path.name} {_size(image)}, {each.small.name} {_size(own)}"
        for each, image, own in zip(photographs, images, small, strict=True)
        if each.small is not None and own is not None and _size(_cut(image, scale)) != _size(own, scale)
    ]
    if wrong:
        raise InputError(
            "Images and their low-resolution versions do not match.",
            expected=f"sides {scale} times those of the low-resolution version, to within {scale} pixels",
            got="\n".join(wrong[:8]),
            where=photographs[0].path.parent,
            next_step=f"choose the scale they were made for with --scale, or take the folder X{scale} away",
        )


def _cut(image: Tensor, scale: int) -> Tensor:
    """Without the last rows and columns that are no multiple of the scale."""
    height, width = (size // scale * scale for size in image.shape[1:])
    return image[:, :height, :width]


def _middle(image: Tensor, side: int, scale: int) -> Tensor:
    """Of an image whose input's sides are ``scale`` times smaller."""
    top, left = ((size // scale - min(size // scale, side)) // 2 * scale for size in image.shape[1:])
    return image[:, top : top + side * scale, left : left + side * scale]


def _size(image: Tensor, scale: int = 1) -> str:
    return f"{image.shape[2] * scale}x{image.shape[1] * scale}"
