"""Names of architectures, and building what they stand for."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from metaprune_cli.config.choices import ARCHITECTURES
from metaprune_cli.errors import InputError
from metaprune_cli.models import vision
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.importing import import_named
from metaprune_cli.models.mobilenet import MobileNetV1, MobileNetV2
from metaprune_cli.models.on_meta import Limits, TooLargeError, build_limited, build_on_meta, parameters_on_meta
from metaprune_cli.models.packages import PACKAGES
from metaprune_cli.models.resnet import DEPTHS, ResNet
from metaprune_cli.models.restoration import EDSR, DnCNN, SRResNet, UNet
from metaprune_cli.models.values import check_values
from metaprune_cli.models.vgg import STAGES, VGG
from metaprune_cli.models.vit import vit

Builder = Callable[..., nn.Module]

CIFAR: Mapping[str, Builder] = MappingProxyType(
    {
        **{f"resnet{depth}": partial(ResNet, depth) for depth in DEPTHS},
        **{f"vgg{depth}_bn": partial(VGG, depth) for depth in STAGES},
        "mobilenet_v1": MobileNetV1,
        "mobilenet_v2": MobileNetV2,
        "vit": vit,
    }
)
CHANNELS = 3
"""Of images, where an architecture does not say."""
RESTORE: Mapping[str, Builder] = MappingProxyType({"dncnn": DnCNN, "srresnet": SRResNet, "edsr": EDSR, "unet": UNet})


@dataclass(frozen=True)
class Group:
    """Architectures of this package under one prefix: builders, the usual side of an input, and what they are for.

    ``scales``: whether their argument ``width`` multiplies their channels, and is no number of them.
    """

    builders: Mapping[str, Builder]
    size: int
    about: Callable[[str], str]
    scales: bool


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "cifar": Group(CIFAR, 32, lambda _: "classification", scales=True),
        "restore": Group(
            RESTORE, 48, lambda name: "super-resolution" if name in ("srresnet", "edsr") else "denoising", scales=False
        ),
    }
)
_OWN = (*GROUPS, "torchvision")
_REACHING_OUT = ("weights", "pretrained", "progress", "quantize")
"""How torchvision's arguments begin that load weights from elsewhere or say so; its older names are heard as well."""


def list_architectures() -> list[str]:
    """The names whose keys and shapes are known here, ``cifar:...``, ``restore:...`` and ``torchvision:...``."""
    own = [f"{prefix}:{name}" for prefix, group in GROUPS.items() for name in group.builders]
    return sorted(own + [f"torchvision:{name}" for name in vision.names()])


def names_in(prefix: str) -> list[str]:
    """The architectures of an optional package, ``timm:...`` or ``hf:...``; none of any other.

    Raises:
        InputError: the package is not installed.
    """
    return [f"{prefix}:{name}" for name in PACKAGES[prefix].names()] if prefix in PACKAGES else []


def is_factory(name: str) -> bool:
    """Whether a name stands for code of somebody else's, which has to be imported."""
    return ARCHITECTURES.is_code(name)


def shows_in_its_keys(name: str) -> bool:
    """Whether the keys and shapes of this architecture are known beforehand."""
    return name.partition(":")[0] in _OWN


def build(
    architecture: Architecture, device: str = "cpu", allow_import: bool = True, limits: Limits | None = None
) -> nn.Module:
    """Build a model with fresh weights, in training mode.

    Args:
        architecture: what to build; weights are never downloaded.
        device: ``cpu`` (random weights; seed torch first), or ``meta`` (shapes only).
        allow_import: whether ``package.module:factory`` may be imported.
        limits: how large it may become, where a file says its arguments.

    Raises:
        InputError: an unknown name, a factory that cannot be or may not be imported, or arguments that do not fit.
    """
    make = partial(_call, _builder(architecture, device, allow_import), architecture)
    return build_on_meta(make, limits).to("meta") if device == "meta" else build_limited(make, limits).to(device)


def skeleton(architecture: Architecture, allow_import: bool = True, limits: Limits | None = None) -> nn.Module:
    """A model whose parameters are on meta, and whose computed constants (index tables) are real."""
    return build_on_meta(partial(_call, _builder(architecture, "meta", allow_import), architecture), limits)


def shell(architecture: Architecture, allow_import: bool = True, limits: Limits | None = None) -> nn.Module:
    """A model whose parameters are on meta, and all of whose constants are real, if its constructor can do without.

    Slower than a skeleton, and parameters still take no memory.
    """
    try:
        with parameters_on_meta():
            return build_limited(partial(_call, _builder(architecture, "cpu", allow_import), architecture), limits)
    except TooLargeError:
        raise
    except InputError:
        return build(architecture, allow_import=allow_import, limits=limits)


def with_input_shape(architecture: Architecture) -> Architecture:
    """The architecture with the usual input shape of its kind where none is given.

    Factories, and models that take more than one tensor, stay as they are.
    """
    family, _, name = architecture.name.partition(":")
    if architecture.input_shape is not None or family not in (*_OWN, *PACKAGES):
        return architecture
    if family in PACKAGES:
        return replace(architecture, input_shape=PACKAGES[family].shape(name, architecture.args))
    if family in GROUPS:
        group = GROUPS[family]
        channels = architecture.args.get("in_channels", _channels(group.builders.get(name)))
        size = architecture.args.get("image_size", group.size)
        if not (isinstance(channels, int) and isinstance(size, int)):
            return architecture  # whoever builds it refuses the arguments
        return replace(architecture, input_shape=(channels, size, size))
    if name not in vision.names():
        return architecture
    return replace(architecture, input_shape=vision.usual_shape(name, architecture.args))


def takes_argument(name: str, argument: str) -> bool:
    """Whether a known architecture can be built with an argument of this name."""
    family, _, short = name.partition(":")
    if family in GROUPS:
        return argument == "image_size" or argument in inspect.signature(GROUPS[family].builders[short]).parameters
    if argument == "num_classes":
        return vision.task_of(short) != "optical flow"
    return argument == "image_size" and short.startswith("vit_")


def is_scaled(name: str) -> bool:
    """Whether an architecture of ours has an argument ``width`` that multiplies its channels."""
    group = GROUPS.get(name.partition(":")[0])
    return group is not None and group.scales and takes_argument(name, "width")


def _channels(builder: Builder | None) -> Any:
    """Of the images that a builder's model takes if nothing is said."""
    parameter = None if builder is None else inspect.signature(builder).parameters.get("in_channels")
    return CHANNELS if parameter is None else parameter.default


def factory_of(architecture: Architecture) -> Builder | None:
    """The user's callable that makes a model, if its module is loaded already; None for known architectures."""
    module, _, attribute = architecture.name.partition(":")
    found: Any = sys.modules.get(module) if is_factory(architecture.name) else None
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found  # type: ignore[no-any-return]


def _builder(architecture: Architecture, device: str, allow_import: bool) -> Builder:
    """The callable behind a name."""
    family, _, name = architecture.name.partition(":")
    if family in GROUPS and name in GROUPS[family].builders:
        return GROUPS[family].builders[name]
    if family == "torchvision" and name in vision.names():
        return vision.builder(name, device)
    if family in PACKAGES and name:
        return PACKAGES[family].builder(name)
    if not is_factory(architecture.name):
        raise _unknown(architecture.name)
    if not allow_import:
        raise InputError(
            "The file names a model class or factory that would have to be imported, and importing runs its code.",
            got=architecture.name,
            next_step="if you trust the file and the module, add --allow-import, or name it with --arch; "
            "metaprune remembers that for the folder that contains it",
        )
    return import_named(architecture.name, "factory", where="--arch")


def _call(builder: Builder, architecture: Architecture) -> nn.Module:
    """Call a builder with the architecture's arguments.

    Raises:
        InputError: it does not take them, fails on them, or returns no module.
    """
    args = _arguments(builder, architecture)
    try:
        module = builder(**args)
    except TooLargeError:
        raise
    except Exception as error:
        raise InputError(
            f"{architecture.name} could not be built.",
            got=f"{type(error).__name__}: {error}",
            where=", ".join(f"{key}={value}" for key, value in args.items()) or "no arguments",
            next_step="check --arch and --arch-arg; --debug shows the traceback",
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            "The factory did not return a model.",
            expected="a torch.nn.Module",
            got=type(module).__name__,
            where=architecture.name,
        )
    return module


def _arguments(builder: Builder, architecture: Architecture) -> dict[str, Any]:
    """The keyword arguments to call a builder with.

    Raises:
        InputError: naming all that it does not take.
    """
    args = dict(architecture.args)
    try:
        parameters = inspect.signature(builder).parameters
    except ValueError:  # a callable written in C says nothing about its arguments
        return args
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    accepted = sorted({*parameters} - {"weights", "progress", "kwargs"})
    refused = [key for key in args if key not in accepted and not open_ended]
    family = architecture.name.partition(":")[0]
    if family == "torchvision":  # its builders are open-ended, but nothing is ever downloaded
        accepted = ["num_classes", "any other argument of torchvision's class"]
        refused = [key for key in args if key.startswith(_REACHING_OUT)]
    if family in (*_OWN, "timm"):
        check_values(args, architecture.name)
    if family in GROUPS and "image_size" not in accepted:  # convolutions take any size; it says what the input is
        accepted.append("image_size")
        refused = [key for key in refused if key != "image_size"]
        args.pop("image_size", None)
    if refused:
        raise InputError(
            f"{architecture.name} does not take these arguments.",
            expected=", ".join(accepted) or "none",
            got=", ".join(f"{key}={args[key]}{_suggestion(key, accepted)}" for key in refused),
            where="--arch-arg",
        )
    return args


def _unknown(name: str) -> InputError:
    known = list_architectures()
    own = [full for full in known if full.partition(":")[0] in GROUPS]
    return InputError(
        f"There is no architecture {name!r}{_suggestion(name, known)}",
        expected="cifar:NAME, restore:NAME, torchvision:NAME, timm:NAME, hf:NAME or package.module:factory",
        where="--arch",
        next_step=f"choose one of {', '.join(own)}, any of torchvision's models, or a factory of yours",
    )


def _suggestion(name: str, known: list[str]) -> str:
    """`` (did you mean ...?)``, by the whole name or by what follows its colon."""
    same = [full for full in known if full.partition(":")[2] == name]
    short = {full.partition(":")[2] or full: full for full in reversed(known)}
    close = (
        same
        or difflib.get_close_matches(name, known, n=3)
        or [short[match] for match in difflib.get_close_matches(name.rpartition(":")[2], list(short), n=3)]
    )
    return f" (did you mean {' or '.join(close)}?)" if close else ""
