from __future__ import annotations

import torch
from torch import Tensor, nn

from metaprune_cli.metrics import count_macs
from metaprune_cli.metrics.layers import time_layers
from metaprune_cli.metrics.memory import peak_memory


class Net(nn.Module):
    """Convolution, normalisation, attention in its fast path, and a view of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patch(x)).relu().flatten(2).transpose(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0]
        return x.mean(1) @ self.head.weight.t()


def test_operators_belong_to_the_layer_whose_parameter_they_read() -> None:
    model, images = Net().eval(), torch.randn(2, 3, 16, 16)
    profile = time_layers({"net": model}, images, runs=2)["net"]
    owned = {name for name, layer in profile.layers.items() if layer.owned}
    assert {"patch", "norm", "attention", "head"} <= owned
    assert "relu" in profile.layers
    assert not profile.layers["relu"].owned
    assert sum(layer.macs for layer in profile.layers.values()) == count_macs(model, images)
    assert profile.layers["patch"].macs == 2 * 16 * 8 * 3 * 16
    assert all(layer.ms > 0 and layer.calls > 0 for layer in profile.layers.values())
    assert profile.ms > 0


def test_timing_layers_leaves_the_model_alone() -> None:
    model = Net().train()
    time_layers({"net": model}, torch.randn(2, 3, 16, 16), runs=1)
    assert model.training
    assert int(model.norm.num_batches_tracked) == 0


def test_peak_memory_is_what_is_alive_at_the_worst_moment() -> None:
    wide = nn.Sequential(nn.Linear(10, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 10, bias=False))
    weights, given, activation = 4 * 20_000, 4 * 5 * 10, 4 * 5 * 1000
    assert peak_memory(wide, torch.zeros(5, 10)) == weights + given + 2 * activation
    wide[1] = nn.ReLU(inplace=True)
    assert peak_memory(wide, torch.zeros(5, 10)) == weights + given + activation + 4 * 5 * 10
