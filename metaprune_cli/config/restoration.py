"""What is restored: settings of super-resolution and denoising, within section ``data``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal

from metaprune_cli.config.choices import Count, PixelKind, Pixels
from metaprune_cli.config.flags import RESTORATION, Flag
from metaprune_cli.config_loader import Range

Scale = Annotated[int, Range(at_least=2, at_most=8)]
NoiseLevel = Annotated[float, Range(above=0, at_most=255)]
Multiple = Annotated[int, Range(at_least=1, at_most=1024)]
RestorationLoss = Literal["l1", "mse"]
SCALE, SIGMA = 2, 25.0
REMEMBERED = ("scale", "sigma", "pixels")
"""What a model is made for, and its file says."""


@dataclass(frozen=True)
class RestorationSettings:
    """What is restored; None is what the models' files say, or the usual."""

    scale: Annotated[
        Scale | None,
        Flag(
            "Upscaling factor of super-resolution.",
            RESTORATION,
            "N",
            default=f"as stored in the model files, or {SCALE}",
        ),
    ] = None
    sigma: Annotated[
        NoiseLevel | None,
        Flag(
            "Standard deviation of the noise, for pixels from 0 to 255.",
            RESTORATION,
            "LEVEL",
            default=f"as stored in the model files, or {SIGMA:g}",
        ),
    ] = None
    pixels: Annotated[
        PixelKind | None,
        Flag(
            "Colour mode of the images.",
            RESTORATION,
            default="as stored in the model files, otherwise gray for denoising and rgb for super-resolution",
        ),
    ] = None
    tests: Annotated[
        tuple[str, ...],
        Flag(
            "Folder of test images inside the data folder; may be repeated.",
            RESTORATION,
            "NAME",
            names=("--test-set",),
            default="all known ones that exist",
        ),
    ] = ()
    tile: Annotated[
        Pixels | None,
        Flag(
            "Evaluate images in overlapping tiles of N x N pixels, to save memory.",
            RESTORATION,
            "N",
            default="whole images",
        ),
    ] = None
    multiple: Annotated[
        Multiple | None,
        Flag(
            "Pad images so that their sides are a multiple of N.",
            RESTORATION,
            "N",
            default="as the architecture needs, or 1",
        ),
    ] = None
    patches: Count = 1024
    loss: RestorationLoss = "l1"

    @property
    def remembered(self) -> dict[str, Any]:
        """What is said of the models, as JSON values."""
        return {name: value for name in REMEMBERED if (value := asdict(self)[name]) is not None}

    def after(self, document: Mapping[str, Any] | None) -> RestorationSettings:
        """The same, with what a model's document says where these say nothing."""
        known = {one.name for one in fields(self)}
        said = {name: value for name, value in (document or {}).items() if name in known}
        return replace(self, **said | self.remembered)


AS_USUAL = RestorationSettings()
