"""Bringing images to a size: the shorter side resized, the middle kept, by the interpolation that a model asks for."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from metaprune_cli.config import Preprocessing

USUAL_MARGIN = 256 / 224
"""The usual evaluation on ImageNet: resize to 256, keep the central 224."""
LONGEST = 16
"""Of a very long image only the middle is used: so many times as long as it is wide."""


def resized_squares(pixels: Tensor, side: int, said: Preprocessing) -> Tensor:
    """Images uint8 (n, c, h, w) as (n, c, side, side): squeezed, or where a crop is said the middle of them."""
    from torchvision.transforms import v2

    whole = side if said.crop is None else max(side, round(side / said.crop))
    how = {"interpolation": _mode(said.interpolation or "bilinear"), "antialias": True}
    resized: Tensor = v2.functional.resize(pixels, [whole, whole], **how)
    return resized if whole == side else v2.functional.center_crop(resized, [side, side])


def fitted(picture: Image.Image, size: tuple[int, int], said: Preprocessing) -> Image.Image:
    """A picture of ``size`` (height, width): resized to cover it with some margin, and cropped; or left alone."""
    from torchvision.transforms import v2

    picture = middle(picture)
    height, width = size
    if picture.size == (width, height):
        return picture
    margin = USUAL_MARGIN if said.crop is None else 1 / said.crop
    wanted = [max(height, round(height * margin))]  # of the shorter side
    if height != width:
        scale = margin * max(height / picture.height, width / picture.width)
        wanted = [max(height, round(scale * picture.height)), max(width, round(scale * picture.width))]
    resized: Image.Image = v2.functional.resize(
        picture, wanted, interpolation=_mode(said.interpolation or "bilinear"), antialias=True
    )
    cropped: Image.Image = v2.functional.center_crop(resized, [height, width])
    return cropped


def middle(picture: Image.Image) -> Image.Image:
    """The middle of a picture that is very long: resized by its shorter side, the whole of it may fill the memory."""
    width, height = picture.size
    most = LONGEST * min(width, height)
    if max(width, height) <= most:
        return picture
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return picture.crop((left, top, left + min(width, most), top + min(height, most)))


def _mode(name: str) -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode(name)
