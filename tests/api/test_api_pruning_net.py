"""``mp.train_pruning_net``: one network that gives a module's weights for any widths."""

from __future__ import annotations

import torch
from torch import nn

import metaprune as mp


def test_a_module_and_tensors_are_all_it_takes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    model = nn.Sequential(model, nn.Flatten(), nn.Linear(6, 3))
    images, labels = torch.randn(24, 1, 8, 8), torch.arange(24) % 3
    net = mp.train_pruning_net(model, (images, labels), val=(images, labels), epochs=1, batch_size=12)
    smallest = net.space.smallest()
    small = net.network(smallest)
    assert small(images).shape == (24, 3)
    assert mp.count_params(small) < mp.count_params(model)
