"""Packages of models that are looked up by name, if they are installed: ``timm:NAME`` and ``hf:NAME``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from metaprune_cli.models import timm_models
from metaprune_cli.models.huggingface import classes
from metaprune_cli.models.huggingface.inputs import usual_inputs

Shape = tuple[int, ...]
Args = Mapping[str, Any]


@dataclass(frozen=True)
class Package:
    """One package.

    Attributes:
        module: its name in Python.
        names: of its architectures.
        builder: of a name, what makes a model with random weights.
        shape: of a name and arguments, the shape of one input where that is one tensor.
        inputs: of a name and arguments, the inputs where they are more, or no images.
    """

    module: str
    names: Callable[[], tuple[str, ...]]
    builder: Callable[[str], Callable[..., nn.Module]]
    shape: Callable[[str, Args], Shape | None]
    inputs: Callable[[str, Args], Any]


def _nothing(_name: str, _args: Args) -> None:
    return None


PACKAGES: Mapping[str, Package] = MappingProxyType(
    {
        timm_models.PREFIX: Package(
            timm_models.PACKAGE, timm_models.names, timm_models.builder, timm_models.usual_shape, _nothing
        ),
        classes.PREFIX: Package(classes.PACKAGE, classes.names, classes.builder, _nothing, usual_inputs),
    }
)
"""By the prefix of their architectures' names."""
