"""From params.yaml and what was said on the command line to settings."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from metaprune_cli.config_loader import load_section, merged, sections
from metaprune_cli.errors import InputError

DEFAULT_PARAMS = Path("params.yaml")
NO_FILE = "none"
"""Given in place of a settings file: the defaults hold."""
NAME_IMAGES = ("dataset", "data_root", "task")
"""The options that say which images are meant."""
DVC = "DVC_STAGE"
"""Set in the environment of what DVC runs."""


def params_file(params: Path | None) -> Path | None:
    """The settings file: the one that was named, else ``params.yaml`` where there is one.

    Raises:
        InputError: there is none of that name.
    """
    if params is None:
        return DEFAULT_PARAMS if DEFAULT_PARAMS.is_file() else None
    if str(params) == NO_FILE and not params.exists():
        return None
    if not params.is_file():
        raise InputError("The settings file does not exist.", where=params, next_step="check --params")
    return params


def unasked(given: Mapping[str, Any]) -> Path | None:
    """The settings file that says which images are used, where nobody has named either; None: there is none.

    Args:
        given: the options, by name.
    """
    if "params" not in given or any(given.get(name) is not None for name in ("params", *NAME_IMAGES)):
        return None
    file = params_file(None)
    return file if file is not None and isinstance(sections(file).get("data"), Mapping) else None


def about_images(file: Path) -> str:
    """What a settings file says of images, in a few words."""
    own = sections(file)["data"]
    return ", ".join(f"{name}: {own[name]}" for name in ("dataset", "task", "image_size") if name in own)


def check_code(
    code: Mapping[str, str], said: Collection[str], file: Path | None, *, is_asked_for: bool, has_leave: bool
) -> None:
    """Refuse code that only a settings file names which nobody has named: a folder may be anybody's.

    What the user names, here or by naming the file, is remembered as their word. What DVC runs was written by whoever
    wrote the settings, and `dvc repro` runs all of it.

    Args:
        code: settings that name code, and what they name.
        said: the settings that options gave.
        file: the settings file, if there is one.
        is_asked_for: whether the user has named it.
        has_leave: whether what files name may be imported this once.

    Raises:
        InputError: it names some.
    """
    if not code:
        return
    from metaprune_cli.models.consent import note_named, was_named  # imports torch

    for setting, value in code.items():
        if setting in said or is_asked_for:
            note_named(value)
        elif file is not None and not has_leave and DVC not in os.environ and not was_named(value, file):
            raise InputError(
                f"{file} names code that would have to be imported, and importing runs it.",
                got=f"{setting}: {value}",
                where=file,
                next_step=f"if you trust it, --params {file} once; or --params {NO_FILE}, which leaves {file} out",
            )


def read_section(
    cls: type[Any], section: str, file: Path | None, said: Mapping[str, Any], *, if_said: bool = False
) -> Any:
    """A section of a settings file, what the command line says on top.

    Args:
        cls: the settings class.
        section: its name in the file.
        file: None: the defaults hold.
        said: values by setting; dotted names are of nested sections.
        if_said: the result is None where neither ``said`` nor the file has a word of the section.

    Raises:
        InputError: a key or value is wrong.
    """
    if if_said and not said and (file is None or section not in sections(file)):
        return None
    overrides: dict[str, Any] = {}
    for name, value in said.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        overrides = merged(overrides, value)
    return load_section(file, section, cls, overrides)
