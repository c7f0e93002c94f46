"""Classes of ``transformers`` by name, and building them from a configuration alone, without a network.

The package is imported when it is first asked for something: that takes seconds.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import nn

from metaprune_cli.errors import InputError
from metaprune_cli.models.huggingface.config import checked_config
from metaprune_cli.models.optional import optional

PACKAGE, PREFIX = "transformers", "hf"


def model_class(name: str) -> Any:
    """The class of a model; names are looked up in the package and nowhere else.

    Raises:
        InputError: the package is not installed, or has no model of this name.
    """
    package = _package()
    found: Any = getattr(package, name, None) if name.isidentifier() and not name.startswith("_") else None
    is_model = isinstance(found, type) and issubclass(found, package.PreTrainedModel)
    if not is_model or getattr(found, "config_class", None) is None:
        raise InputError(
            f"The package {PACKAGE} has no model called {name[:100]!r}.",
            expected="the name of a class with a head, or without one, as config.json says it under architectures",
            where=f"{PACKAGE} {package.__version__}",
            next_step=f"`metaprune list archs '{PREFIX}:*'` shows their names; a newer {PACKAGE} may have it",
        )
    return found


def builder(name: str) -> Callable[..., nn.Module]:
    """What makes a model with random weights from the entries of its configuration, given as keyword arguments."""
    found = model_class(name)

    def build(**config: Any) -> nn.Module:
        with offline():
            model: nn.Module = found(config_of(name, config))
        return model

    return build


def config_of(name: str, config: Mapping[str, Any]) -> Any:
    """The configuration object of a class.

    Raises:
        InputError: an entry cannot stand in a configuration.
    """
    return model_class(name).config_class.from_dict(copy.deepcopy(checked_config(config, f"{PREFIX}:{name}")))


@cache
def names() -> tuple[str, ...]:
    """Every class that the package's own registry of tasks names."""
    _package()
    from transformers.models.auto import modeling_auto

    is_table = re.compile(r"MODEL_\w*MAPPING_NAMES").fullmatch
    tables = [table for key, table in vars(modeling_auto).items() if is_table(key)]
    found = (value for table in tables for value in table.values())
    flat = (name for value in found for name in ([value] if isinstance(value, str) else value))
    return tuple(sorted({name for name in flat if isinstance(name, str)}))


def auto_classes(name: str, model_type: str) -> list[str]:
    """The package's ``Auto`` classes that open a model of this class."""
    _package()
    from transformers.models.auto import modeling_auto

    def opens(auto: Any) -> bool:
        table = getattr(getattr(auto, "_model_mapping", None), "_model_mapping", {})
        return bool(name == table.get(model_type))

    autos = {key: value for key, value in vars(modeling_auto).items() if key.startswith("AutoModel")}
    return sorted(key for key, auto in autos.items() if opens(auto))


@contextmanager
def offline() -> Iterator[None]:
    """Nothing is fetched, and the package says nothing: neither of its progress nor of what it finds unusual."""
    package = _package()
    from huggingface_hub import constants

    logging, before = package.utils.logging, constants.HF_HUB_OFFLINE
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _package() -> Any:
    return optional(PACKAGE, f"folders of save_pretrained and for {PREFIX}:NAME")
