"""A model through a metanetwork, end to end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from metaprune_cli.errors import NumericsError
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, transform


def model() -> nn.Module:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(features, nn.Linear(20, 3)).eval()


def metanetwork() -> MetaNetwork:
    torch.manual_seed(1)
    return MetaNetwork(MetaNetworkConfig(layers=2, hidden=8, ratio=1.0))


def test_the_weights_change_and_the_argument_does_not() -> None:
    before = model()
    kept = copy.deepcopy(before.state_dict())
    after = transform(before, torch.randn(1, 1, 8, 8), metanetwork())
    assert_close(before.state_dict(), kept, rtol=0, atol=0)
    assert after is not before
    for name, tensor in after.state_dict().items():
        buffer = "running" in name or "tracked" in name
        assert torch.equal(tensor, kept[name]) == buffer, name
    images = torch.randn(2, 1, 8, 8)
    assert after(images).shape == before(images).shape


def test_the_output_can_be_trained_further() -> None:
    after = transform(model(), torch.randn(1, 1, 8, 8), metanetwork())
    after(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(parameter.is_leaf and parameter.grad is not None for parameter in after.parameters())


def test_numbers_that_are_not_finite_are_named() -> None:
    network = metanetwork()
    with torch.no_grad():
        network.codec.kinds_out[0] = float("nan")
    with pytest.raises(NumericsError, match=r"not finite\n  where: .*1\.bias"):
        transform(model(), torch.randn(1, 1, 8, 8), network)
