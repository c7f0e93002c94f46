"""Metanetworks that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.errors import InputError

SHIPPED = Path(__file__).parents[2] / "builtin"
"""The folder with them; a file's name without its suffix is the metanetwork's."""
SUFFIX = ".safetensors"


def shipped() -> list[str]:
    """Their names."""
    return sorted(file.name.removesuffix(SUFFIX) for file in SHIPPED.glob(f"*{SUFFIX}"))


def metanetwork_file(given: str | Path) -> Path:
    """The file that is meant: one that is there, or the one of that name that comes with the package.

    Raises:
        InputError: there is neither.
    """
    path = Path(given)
    if path.exists() and not (path.is_dir() and str(given) in shipped()):
        return path
    if str(given) in shipped():
        return SHIPPED / f"{given}{SUFFIX}"
    raise InputError(
        "There is no such metanetwork.",
        expected=f"a file that metaprune meta-train wrote, or one that comes with metaprune: {', '.join(shipped())}",
        got=f"{given}{did_you_mean(str(given), shipped())}",
        where="--metanet",
        next_step="check the path",
    )
