"""What a shell is told of values as they are typed; nothing is read of any model."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from metaprune_cli.config import Criterion
from metaprune_cli.config.compressing import NO_METANET


def criteria(incomplete: str) -> list[str]:
    """The criteria that begin like this."""
    return [name for name in ("auto", *get_args(Criterion)) if name.startswith(incomplete)]


def architectures(incomplete: str) -> list[str]:
    """The architectures that begin like this, and files of code in the working directory."""
    from metaprune_cli.models.registry import list_architectures

    own = (f"{path.stem}:" for path in Path().glob("*.py"))
    return [name for name in (*list_architectures(), *own) if name.startswith(incomplete)]


def metanetworks(incomplete: str) -> list[str]:
    """The metanetworks that come with the package, and files of artifacts in the working directory."""
    from metaprune_cli.methods.registry import learnt_by

    files = (str(path) for path in Path().glob("*.safetensors"))
    names = (NO_METANET, *learnt_by("transform").files().shipped(), *files)
    return [name for name in names if name.startswith(incomplete)]
