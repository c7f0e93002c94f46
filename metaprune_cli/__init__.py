"""metaprune: make a trained PyTorch model easy to prune by passing it through another network, then prune it.

The public names below load what they need when they are first used, so that ``metaprune --help`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaprune_cli.api.prune import prune
    from metaprune_cli.config import DataSettings
    from metaprune_cli.data import load_splits
    from metaprune_cli.graph import NeuronGraph, decode, encode
    from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, transform
    from metaprune_cli.metrics.macs import count_macs, count_params
    from metaprune_cli.models import load_model, save_model

__version__ = "0.1.0"

_HOMES = {
    "DataSettings": "metaprune_cli.config",
    "load_splits": "metaprune_cli.data",
    "NeuronGraph": "metaprune_cli.graph",
    "decode": "metaprune_cli.graph",
    "encode": "metaprune_cli.graph",
    "MetaNetwork": "metaprune_cli.methods.metanet",
    "MetaNetworkConfig": "metaprune_cli.methods.metanet",
    "transform": "metaprune_cli.methods.metanet",
    "count_macs": "metaprune_cli.metrics.macs",
    "count_params": "metaprune_cli.metrics.macs",
    "load_model": "metaprune_cli.models",
    "save_model": "metaprune_cli.models",
    "prune": "metaprune_cli.api.prune",
}

__all__ = [
    "DataSettings",
    "MetaNetwork",
    "MetaNetworkConfig",
    "NeuronGraph",
    "count_macs",
    "count_params",
    "decode",
    "encode",
    "load_model",
    "load_splits",
    "prune",
    "save_model",
    "transform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
