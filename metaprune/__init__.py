"""The short name of the Python API, ``import metaprune as mp``: the public names of ``metaprune_cli`` alone.

The distribution is called ``metaprune``, so people try that import first; the code is in ``metaprune_cli``, whose name
scripts and files already use. A wheel installs a package for every folder, which is why this one stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import metaprune_cli
from metaprune_cli import __all__ as __all__
from metaprune_cli import __version__ as __version__

if TYPE_CHECKING:
    from metaprune_cli import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(metaprune_cli, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
