"""metaprune: make a trained PyTorch model smaller and faster; prune, repair, finetune, measure and export it.

The public names below load what they need when they are first used, so that ``metaprune --help`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaprune_cli.api.compress import Compressed, compress
    from metaprune_cli.api.dhp import DHP
    from metaprune_cli.api.evaluate import evaluate
    from metaprune_cli.api.export import export
    from metaprune_cli.api.finetune import finetune
    from metaprune_cli.api.prune import prune
    from metaprune_cli.api.pruning_net import train_pruning_net
    from metaprune_cli.api.search import SearchResult, search
    from metaprune_cli.api.sparsify import Sparsified, sparsify
    from metaprune_cli.config import (
        DataSettings,
        OptimSettings,
        Preprocessing,
        PruneSettings,
        PruningNetSettings,
        PruningRule,
        SearchSettings,
    )
    from metaprune_cli.data import Splits, TensorSplit, load_splits
    from metaprune_cli.errors import MetapruneError
    from metaprune_cli.graph import NeuronGraph, decode, encode
    from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, transform
    from metaprune_cli.methods.pruning_net import PruningNet
    from metaprune_cli.metrics.macs import count_macs, count_params
    from metaprune_cli.models import load_model, save_model
    from metaprune_cli.pruning import Plan
    from metaprune_cli.tasks import Task
    from metaprune_cli.training.loop import FitResult
    from metaprune_cli.workflows.export.writing import Exported
    from metaprune_cli.workflows.pruning import Pruned

__version__ = "0.2.0"

_HOMES = {
    "DHP": "metaprune_cli.api.dhp",
    "Compressed": "metaprune_cli.api.compress",
    "compress": "metaprune_cli.api.compress",
    "evaluate": "metaprune_cli.api.evaluate",
    "export": "metaprune_cli.api.export",
    "finetune": "metaprune_cli.api.finetune",
    "prune": "metaprune_cli.api.prune",
    "SearchResult": "metaprune_cli.api.search",
    "search": "metaprune_cli.api.search",
    "train_pruning_net": "metaprune_cli.api.pruning_net",
    "Sparsified": "metaprune_cli.api.sparsify",
    "sparsify": "metaprune_cli.api.sparsify",
    "DataSettings": "metaprune_cli.config",
    "OptimSettings": "metaprune_cli.config",
    "Preprocessing": "metaprune_cli.config",
    "PruneSettings": "metaprune_cli.config",
    "PruningNetSettings": "metaprune_cli.config",
    "PruningRule": "metaprune_cli.config",
    "SearchSettings": "metaprune_cli.config",
    "Splits": "metaprune_cli.data",
    "TensorSplit": "metaprune_cli.data",
    "load_splits": "metaprune_cli.data",
    "MetapruneError": "metaprune_cli.errors",
    "NeuronGraph": "metaprune_cli.graph",
    "decode": "metaprune_cli.graph",
    "encode": "metaprune_cli.graph",
    "MetaNetwork": "metaprune_cli.methods.metanet",
    "MetaNetworkConfig": "metaprune_cli.methods.metanet",
    "transform": "metaprune_cli.methods.metanet",
    "PruningNet": "metaprune_cli.methods.pruning_net",
    "count_macs": "metaprune_cli.metrics.macs",
    "count_params": "metaprune_cli.metrics.macs",
    "load_model": "metaprune_cli.models",
    "save_model": "metaprune_cli.models",
    "Plan": "metaprune_cli.pruning",
    "Task": "metaprune_cli.tasks",
    "FitResult": "metaprune_cli.training.loop",
    "Exported": "metaprune_cli.workflows.export.writing",
    "Pruned": "metaprune_cli.workflows.pruning",
}

__all__ = [
    "DHP",
    "Compressed",
    "DataSettings",
    "Exported",
    "FitResult",
    "MetaNetwork",
    "MetaNetworkConfig",
    "MetapruneError",
    "NeuronGraph",
    "OptimSettings",
    "Plan",
    "Preprocessing",
    "PruneSettings",
    "Pruned",
    "PruningNet",
    "PruningNetSettings",
    "PruningRule",
    "SearchResult",
    "SearchSettings",
    "Sparsified",
    "Splits",
    "Task",
    "TensorSplit",
    "compress",
    "count_macs",
    "count_params",
    "decode",
    "encode",
    "evaluate",
    "export",
    "finetune",
    "load_model",
    "load_splits",
    "prune",
    "save_model",
    "search",
    "sparsify",
    "train_pruning_net",
    "transform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
