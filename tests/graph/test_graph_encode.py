"""Encode → decode is the identity, every element has one place, and MACs are torch's own count."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph, decode, encode
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.models import Architecture, build, list_architectures

CIFAR = [name for name in list_architectures() if name.startswith("cifar:")]
TORCHVISION = {
    "resnet18": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "vgg11_bn": 32,
    "densenet121": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "regnet_y_400mf": 64,
    "regnet_x_400mf": 64,
    "googlenet": 96,
    "inception_v3": 299,
    "vit_b_32": 224,
}


def assert_round_trip(model: nn.Module, example: Tensor) -> NeuronGraph:
    """Everything that a bijective encoding promises, on one model."""
    graph = encode(model, example)
    before = model.state_dict()
    decoded = decode(graph, model).state_dict()
    assert list(decoded) == list(before)
    for name, tensor in before.items():
        assert decoded[name].dtype == tensor.dtype
        assert torch.equal(decoded[name], tensor), name
    assert_each_element_once(graph)
    assert graph.macs == count_macs(model, example)
    return graph


def assert_each_element_once(graph: NeuronGraph) -> None:
    """Each element is an edge, a feature or verbatim, exactly once."""
    for name, tensor in graph.tensors.items():
        if name in graph.aliases:
            continue
        count = torch.zeros(tensor.numel(), dtype=torch.int64)
        for block in graph.blocks:
            if block.param == name:
                count.as_strided(block.size, block.stride, block.offset).add_(1)
        for feature in graph.features:
            if feature.name == name:
                count.index_add_(0, feature.elements, torch.ones(feature.elements.numel(), dtype=torch.int64))
        assert int(count.max()) <= 1, name
        assert bool((count == 1).all()) or name in graph.verbatim, name


@pytest.mark.parametrize("name", CIFAR)
@pytest.mark.parametrize("size", [8, 32])
def test_round_trip_of_the_registry(name: str, size: int) -> None:
    torch.manual_seed(0)
    model = build(Architecture(name, {"num_classes": 10, "in_channels": 1, "image_size": size, "width": 0.5}, None))
    graph = assert_round_trip(model, torch.randn(1, 1, size, size))
    assert not set(graph.verbatim) & graph.trainable


@pytest.mark.parametrize("name", TORCHVISION)
def test_round_trip_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    size = TORCHVISION[name]
    graph = assert_round_trip(model, torch.randn(1, 3, size, size))
    assert not set(graph.verbatim) & graph.trainable


def test_heads_that_only_training_reaches_are_in_the_graph_but_cost_nothing() -> None:
    model = torchvision.models.googlenet(weights=None, init_weights=False).eval()
    example = torch.randn(1, 3, 96, 96)
    graph = encode(model, example)
    blocks = {block.param: block for block in graph.blocks}
    assert blocks["aux1.fc1.weight"].positions == 0
    assert graph.macs == count_macs(model, example)


def test_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    encode(model, torch.randn(1, 3, 8, 8))
    assert model.training
    assert all(not tensor.is_meta for tensor in model.state_dict().values())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_an_edge_is_the_weight_it_stands_for() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 4, 5))
    graph = encode(model, torch.randn(1, 2, 4, 4))
    convolution, classifier = graph.blocks
    assert torch.equal(convolution.weights(graph.tensors), model[0].weight.detach().view(1, 3, 2, 9))
    assert torch.equal(classifier.weights(graph.tensors), model[2].weight.detach().view(1, 5, 3, 4))
    assert torch.equal(classifier.sources[0], convolution.destinations[0])
    assert convolution.kernel == (3, 3)
    assert classifier.kernel == (4,)


def test_weights_of_a_view_into_a_larger_buffer() -> None:
    model = nn.Linear(3, 2)
    graph = encode(model, torch.randn(1, 3))
    buffer = torch.arange(12.0)
    moved = graph.with_tensors({**graph.tensors, "weight": buffer[4:10].view(2, 3)})
    assert torch.equal(moved.blocks[0].weights(moved.tensors).flatten(), buffer[4:10])


def test_positions_first_flattening_finds_the_same_edges() -> None:
    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 3, 1), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).permute(0, 2, 3, 1).flatten(1))

    model = ChannelsLast()
    graph = encode(model, torch.randn(1, 1, 2, 2))
    block = next(b for b in graph.blocks if b.param == "head.weight")
    assert block.size == (1, 2, 3, 4)
    expected = model.head.weight.detach().view(2, 4, 3).transpose(1, 2)
    assert torch.equal(block.weights(graph.tensors)[0], expected)


def test_parts_are_the_graph() -> None:
    model = build(Architecture("cifar:resnet8", {"image_size": 8}, None))
    graph = encode(model, torch.randn(1, 3, 8, 8))
    again = NeuronGraph.from_parts(*graph.to_parts())
    assert again.layers == graph.layers
    assert torch.equal(again.units.unit_of, graph.units.unit_of)
    assert [f.locked for f in again.units.families] == [f.locked for f in graph.units.families]
    for name, tensor in graph.tensors.items():
        assert torch.equal(again.tensors[name], tensor)


def test_buffers_outside_the_state_dict_are_decoded_too() -> None:
    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.register_buffer("angle", torch.arange(4.0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.angle.cos()

    model, example = Rotated(), torch.randn(1, 3)
    decoded = decode(encode(model, example), model)
    assert torch.equal(decoded(example), model(example))


def test_shared_tensors_have_one_place() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.hidden = nn.Linear(4, 4)
            self.out = nn.Linear(4, 7, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.hidden(self.embed(tokens)))

    model = Tied()
    graph = encode(model, torch.zeros(1, 3, dtype=torch.int64))
    assert graph.aliases == {"out.weight": "embed.weight"}
    assert "out.weight" not in graph.trainable
    assert_each_element_once(graph)
    decoded = decode(graph, model)
    assert torch.equal(decoded.out.weight, model.embed.weight)


@pytest.mark.parametrize("arguments", ["positional", "keyword"])
def test_several_inputs_and_structured_outputs(arguments: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, object]:
            both = self.left(x) + self.right(y)
            return {"logits": self.head(both), "extra": (both.mean(),)}

    inputs = (torch.randn(1, 3), torch.randn(1, 2))
    graph = encode(Two(), inputs if arguments == "positional" else {"x": inputs[0], "y": inputs[1]})
    assert graph.macs == 3 * 4 + 2 * 4 + 4 * 2


def test_a_model_that_does_not_run_says_so() -> None:
    with pytest.raises(InputError, match="does not run on the example inputs"):
        encode(nn.Linear(3, 2), torch.randn(1, 4))


class Branch(nn.Module):
    """Which layer is used depends on the data."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.stem, self.warm, self.head, self.both = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2), both

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.warm(x) if self.both or x.sum() > 1e6 else x)


def test_control_flow_on_data_is_traced_on_the_example() -> None:
    graph = encode(Branch(both=True), torch.randn(1, 4))
    assert graph.units.prunable.any()
    assert graph.macs == 4 * 6 + 6 * 6 + 6 * 2


def test_a_branch_that_was_not_taken_locks_everything() -> None:
    graph = encode(Branch(both=False), torch.randn(1, 4))
    assert not graph.units.prunable.any()
    assert {f.locked for f in graph.units.families if f.name == "stem"} == {
        "control flow depends on data, and the example inputs did not reach warm.bias"
    }


def test_edges_are_counted_once_for_all_taps() -> None:
    graph = encode(nn.Conv2d(4, 6, 3, groups=2), torch.randn(1, 4, 5, 5))
    (block,) = graph.blocks
    assert block.num_edges == 2 * 3 * 2
    assert math.prod(block.size) == 6 * 2 * 9
