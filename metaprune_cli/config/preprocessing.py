"""What happens to images before a model sees them: a part of the model, written in its document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal

from metaprune_cli.config.choices import Pixels
from metaprune_cli.config_loader import Range
from metaprune_cli.errors import InputError

Interpolation = Literal["nearest", "bilinear", "bicubic"]
ChannelOrder = Literal["rgb", "bgr"]
Mean = Annotated[float, Range(at_least=-1, at_most=1)]
Std = Annotated[float, Range(at_least=1e-3, at_most=10)]
Crop = Annotated[float, Range(at_least=0.5, at_most=1)]


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a model's input; what is left out is as the data set has it.

    Attributes:
        mean: subtracted, for pixels in [0, 1]; one for each of the model's channels, in its order, or one for all.
        std: divided by, alike.
        image_size: side of the images in pixels.
        crop: side of the middle that is kept over the side images are resized to.
        interpolation: how they are resized.
        channels: the order in which the model takes colours.
    """

    mean: tuple[Mean, ...] = ()
    std: tuple[Std, ...] = ()
    image_size: Pixels | None = None
    crop: Crop | None = None
    interpolation: Interpolation | None = None
    channels: ChannelOrder | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> Preprocessing:
        """The inverse of ``to_document``; what later versions add is left alone."""
        known = {field.name for field in fields(cls)}
        said: dict[str, Any] = {name: value for name, value in (document or {}).items() if name in known}
        return cls(**said | {name: tuple(said[name]) for name in ("mean", "std") if name in said})

    def to_document(self) -> dict[str, Any]:
        """What is said, as JSON values."""
        said = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}

    def over(self, other: Preprocessing) -> Preprocessing:
        """The other, with all that this one says on top."""
        said = {field.name: getattr(self, field.name) for field in fields(self) if field.name in self.to_document()}
        return replace(other, **said)

    def for_channels(self, count: int) -> Preprocessing:
        """The same with a mean and a standard deviation for each of so many channels.

        Raises:
            InputError: there are others of them.
        """
        for name in ("mean", "std"):
            figures = getattr(self, name)
            if len(figures) not in (0, 1, count):
                raise InputError(
                    "The preprocessing has a different number of channels than the images.",
                    expected=f"one {name}, or one for each of the {count} channels",
                    got=" ".join(f"{value:g}" for value in figures),
                    where=f"--{name}, or the model's document",
                )
        return replace(self, mean=_each(self.mean, count), std=_each(self.std, count))

    def in_words(self) -> str:
        """For people: ``mean 0.485 0.456 0.406, std 0.229 0.224 0.225, size 224``."""
        words = {"image_size": "size", "channels": "channel order"}
        return ", ".join(f"{words.get(name, name)} {_written(value)}" for name, value in self.to_document().items())


NOTHING_SAID = Preprocessing()


def _each(figures: tuple[float, ...], count: int) -> tuple[float, ...]:
    return figures * count if len(figures) == 1 else figures


def _written(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{each:.4g}" for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
