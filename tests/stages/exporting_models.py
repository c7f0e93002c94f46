"""Small models of every kind that `export` and `bench` meet, in files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from metaprune_cli.config import PruneSettings, Route
from metaprune_cli.console.progress import Quiet
from metaprune_cli.models import Architecture, save_model
from metaprune_cli.stages.prune import prune
from metaprune_cli.workflows.loading import ModelSource


class Depthwise(nn.Module):
    """Groups follow the channels, and a LayerNorm its width: attributes beside the tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, groups=16)
        self.point = nn.Conv2d(16, 24, 1)
        self.last, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(self.depth(self.norm(self.first(x)).relu()).relu())
        return self.head(self.last(x.mean((2, 3))))


class Attention(nn.Module):
    """A vision transformer whose attention has its width in Python: pruned, it is a program."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 2, 2)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Pair(nn.Module):
    """Two named inputs, one of them whole numbers; a mapping of outputs; one weight under two names."""

    example_inputs: ClassVar = {"ids": torch.tensor([[1, 5, 2]]), "scale": torch.ones(1, 8)}

    def __init__(self) -> None:
        super().__init__()
        self.table, self.back = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.body = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))
        self.back.weight = self.table.weight

    def forward(self, ids: Tensor, scale: Tensor) -> dict[str, Tensor]:
        hidden = self.body(self.table(ids).mean(1)) * scale
        return {"hidden": hidden, "logits": self.back(hidden.tanh())}


class Branching(nn.Module):
    """Control flow that depends on data: nothing can capture it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x.flatten(1))
        return x * 2 if x.sum() > 0 else x


SHAPES = {Depthwise: (1, 8, 8), Attention: (1, 8, 8), Pair: None, Branching: (1, 8, 8)}
SOURCE = ModelSource(allow_import=True)


def saved(kind: type[nn.Module], path: Path) -> Path:
    """A model of this kind, its running statistics no longer those of a new one."""
    torch.manual_seed(0)
    model = kind()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_()
    save_model(model, path, arch=Architecture(f"{__name__}:{kind.__name__}", {}, SHAPES[kind]))
    return path


def pruned(path: Path, speedup: float = 1.6, route: Route = "auto") -> Path:
    """The same, the same share of every family removed."""
    target = path.with_name(f"{path.stem}.small.safetensors")
    settings = PruneSettings(speedup=(speedup,), scope="family", route=route)
    prune([path], target, settings, source=SOURCE, data=None, device=torch.device("cpu"), progress=Quiet())
    return target
