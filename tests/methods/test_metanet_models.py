"""The metanetwork on real models, encoded by the trace: backends agree, permuted in is permuted out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from equivariance import assert_permutation_equivariant, permute, random_order
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.models import Architecture, build


class Mixed(nn.Module):
    """A residual stream, a depthwise, a grouped and a transposed convolution, a flattened classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.expand, self.depthwise = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.project = nn.Conv2d(24, 8, 1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, stride=2, groups=2)
        self.up = nn.ConvTranspose2d(16, 6, 2, stride=2)
        self.head = nn.Linear(6 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.project(self.depthwise(self.expand(x).relu()).relu())
        x = self.up(self.grouped(x).relu())
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def registered(name: str, **options: float) -> Callable[[], nn.Module]:
    arguments = {"num_classes": 4, "in_channels": 1, "image_size": 8, "width": 0.25, **options}
    return lambda: build(Architecture(f"cifar:{name}", arguments, None))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mixed": Mixed,
    "resnet8": registered("resnet8"),
    "resnet20": registered("resnet20"),
    "vgg11_bn": registered("vgg11_bn", width=0.125),
    "mobilenet_v1": registered("mobilenet_v1"),
    "mobilenet_v2": registered("mobilenet_v2"),
    "vit": registered("vit"),
}


@cache
def traced(name: str) -> tuple[nn.Module, NeuronGraph, Tensor]:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():
        if parameter.dim() < 2:
            nn.init.uniform_(parameter, 0.5, 1.5)  # fresh norms and biases are all alike: nothing to permute
    example = torch.randn(1, 1, 8, 8)
    return model, encode(model, example), example


def metanetwork() -> MetaNetwork:
    """Untrained, its decoders enlarged so that the change is of the weights' own size."""
    torch.manual_seed(0)
    network = MetaNetwork(MetaNetworkConfig(layers=2, hidden=8, ratio=1.0))
    with torch.no_grad():
        for name, parameter in network.codec.named_parameters():
            if name.startswith(("taps_out.outer", "kinds_out")):
                parameter.mul_(100)
    return network


@pytest.mark.parametrize("name", MODELS)
def test_backends_agree(name: str) -> None:
    _, graph, _ = traced(name)
    with torch.no_grad():
        blocks, edges = (metanetwork()(graph, backend=backend) for backend in ("blocks", "edges"))
    for entry in graph.tensors:
        assert_close(blocks[entry], edges[entry], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_permuted_model_computes_the_same(name: str) -> None:
    model, graph, example = traced(name)
    permuted = permute(graph, graph.tensors, random_order(graph, seed=1))
    assert any(not torch.equal(tensor, graph.tensors[entry]) for entry, tensor in permuted.items())
    assert_close(functional_call(model, permuted, example), model(example), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["blocks", "edges"])
@pytest.mark.parametrize("name", MODELS)
def test_permuting_a_models_channels_permutes_the_output(name: str, backend: str) -> None:
    with torch.no_grad():
        assert_permutation_equivariant(metanetwork(), traced(name)[1], backend)
