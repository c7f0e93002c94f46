"""The models of the package ``timm``: their names, what they take; weights are never fetched.

The package is imported when it is first asked for something.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import nn

from metaprune_cli.errors import InputError
from metaprune_cli.models.optional import optional

PACKAGE, PREFIX = "timm", "timm"
REACHING_OUT = ("pretrained", "checkpoint", "cache_dir")
"""How arguments begin that load weights from elsewhere or describe them."""


@cache
def names() -> tuple[str, ...]:
    """Every architecture that the package registers."""
    return tuple(_package().list_models())


def builder(name: str) -> Callable[..., nn.Module]:
    """What makes a model with random weights.

    Raises:
        InputError: the package has none of this name, or the arguments would fetch something.
    """
    package = _package()
    if name.partition(".")[0] not in names():  # after a dot: which weights it had
        close = difflib.get_close_matches(name, names(), n=3)
        raise InputError(
            f"The package {PACKAGE} has no model called {name[:100]!r}.",
            expected="a name that it registers" + (f": {', '.join(close)}?" if close else ""),
            where=f"{PACKAGE} {package.__version__}",
            next_step=f"`metaprune list archs '{PREFIX}:*'` shows them",
        )

    def build(**args: Any) -> nn.Module:
        if refused := [key for key in args if key.startswith(REACHING_OUT)]:
            raise InputError(
                f"{PREFIX}:{name} does not take these arguments: weights are not fetched.",
                expected="arguments that say how the model is built",
                got=", ".join(refused),
                where="--arch-arg",
                next_step="leave them out, and pass the weights file as MODEL",
            )
        model: nn.Module = package.create_model(name, pretrained=False, **args)
        return model

    return build


def usual_shape(name: str, args: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of one image that the package trains this model on, or that the arguments say; without the batch."""
    known = _package().get_pretrained_cfg(name.partition(".")[0])
    usual = tuple(getattr(known, "input_size", None) or (3, 224, 224))
    size = args.get("img_size", usual[1:])
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return (args.get("in_chans", usual[0]), height, width)


def _package() -> Any:
    return optional(PACKAGE, f"{PREFIX}:NAME")
