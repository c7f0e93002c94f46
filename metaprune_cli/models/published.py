"""The preprocessing of published weights, by the name of the weights; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from metaprune_cli.config import Preprocessing
from metaprune_cli.config.preprocessing import Interpolation
from metaprune_cli.errors import InputError
from metaprune_cli.models.optional import optional


def published(name: str) -> Preprocessing:
    """What the images of known weights go through.

    Args:
        name: ``torchvision:resnet50`` (its default weights), ``torchvision:ResNet50_Weights.IMAGENET1K_V1``, or
            ``timm:convnext_atto``.

    Raises:
        InputError: there are none of this name, or the package is not installed.
    """
    library, _, weights = name.partition(":")
    read = _LIBRARIES.get(library)
    if read is None or not weights:
        raise _unknown(name, "it begins with no library that is known")
    try:
        return read(weights)
    except (ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise _unknown(name, str(error)) from error


def _torchvision(weights: str) -> Preprocessing:
    from torchvision.models import get_model_weights, get_weight

    if "_Weights." in weights:
        found = get_weight(weights)
    else:
        several: Any = get_model_weights(weights)
        if not hasattr(several, "DEFAULT"):
            raise ValueError("it has no weights")
        found = several.DEFAULT
    how = found.transforms()
    size, whole = how.crop_size[0], how.resize_size[0]
    return Preprocessing(
        mean=tuple(how.mean),
        std=tuple(how.std),
        image_size=size,
        crop=max(0.5, size / whole),
        interpolation=_interpolation(how.interpolation.value),
    )


def _timm(weights: str) -> Preprocessing:
    timm = optional("timm", "the preprocessing of its weights")

    found = timm.get_pretrained_cfg(weights)
    if found is None:
        raise ValueError("timm has no weights of this name")
    return Preprocessing(
        mean=tuple(found.mean),
        std=tuple(found.std),
        image_size=found.input_size[-1],
        crop=found.crop_pct or None,
        interpolation=_interpolation(found.interpolation),
    )


def _interpolation(name: str) -> Interpolation:
    choices = get_args(Interpolation)
    if name not in choices:
        raise ValueError(f"images are resized by {name}, and here by {', '.join(choices)}")
    return name  # type: ignore[return-value]


def _unknown(name: str, problem: str) -> InputError:
    return InputError(
        "There are no known weights with this name.",
        expected="torchvision:resnet50, torchvision:ResNet50_Weights.IMAGENET1K_V1 or timm:convnext_atto",
        got=f"{name}: {problem}",
        where="--preprocessing",
        next_step="give the values instead: --mean, --std, --image-size, --interpolation",
    )


_LIBRARIES: Mapping[str, Callable[[str], Preprocessing]] = {"torchvision": _torchvision, "timm": _timm}
