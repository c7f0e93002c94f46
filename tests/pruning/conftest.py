"""Small models of every kind of coupling, traced once per session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
import torchvision
from torch import Tensor, nn

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.models import Architecture, build


@dataclass(frozen=True, eq=False)
class Traced:
    """A model with weights and statistics as after some training, its graph and an example input."""

    model: nn.Module
    graph: NeuronGraph
    inputs: Tensor


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


class Residual(nn.Module):
    """Residual stream, depthwise and grouped convolutions, a flattened classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand = nn.Conv2d(8, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.project = nn.Conv2d(12, 8, 1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.project(self.depthwise(self.expand(x).relu()))
        x = self.norm(self.grouped(x)).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def vit() -> nn.Module:
    model = torchvision.models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=64, num_classes=4
    )
    nn.init.normal_(model.heads.head.weight)  # zero by default: every comparison would be trivial
    return model


_BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (1, 5)),
    "residual": (Residual, (1, 3, 7, 7)),
    "vit": (vit, (1, 3, 8, 8)),
    "resnet8": (lambda: build(Architecture("cifar:resnet8", {}, (1, 3, 32, 32))), (1, 3, 32, 32)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), (1, 3, 32, 32)),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), (1, 3, 32, 32)),
    "densenet121": (lambda: torchvision.models.densenet121(num_classes=10), (1, 3, 32, 32)),
    "squeezenet1_1": (lambda: torchvision.models.squeezenet1_1(num_classes=10), (1, 3, 64, 64)),
}


@cache
def _trace(name: str) -> Traced:
    builder, shape = _BUILDERS[name]
    torch.manual_seed(0)
    model = builder().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    inputs = torch.randn(shape)
    return Traced(model, encode(model, inputs), inputs)


@pytest.fixture
def traced() -> Callable[[str], Traced]:
    """Traced models by name."""
    return _trace
