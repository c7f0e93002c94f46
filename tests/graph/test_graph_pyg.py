"""A graph written out for PyTorch Geometric comes back bit for bit."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from metaprune_cli.graph import encode
from metaprune_cli.graph.neuron_graph import NeuronGraph

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyG's import, once


class Small(nn.Module):
    """Grouped and dense convolutions, a residual addition, a position embedding, a shared weight, a strange buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=4, bias=False)
        self.position = nn.Parameter(torch.randn(1, 8, 6, 6))
        self.head = nn.Linear(8, 5)
        self.register_buffer("strange", torch.tensor([float("nan"), -0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.grouped(x) + self.position
        return self.head(x.mean((2, 3)))


def small() -> NeuronGraph:
    torch.manual_seed(0)
    return encode(Small().eval(), torch.randn(1, 3, 6, 6))


def channels_last() -> NeuronGraph:
    torch.manual_seed(0)
    return encode(Small().eval().to(memory_format=torch.channels_last), torch.randn(1, 3, 6, 6))


def double() -> NeuronGraph:
    torch.manual_seed(0)
    return encode(Small().eval().double(), torch.randn(1, 3, 6, 6, dtype=torch.float64))


def half() -> NeuronGraph:
    graph = small()
    return graph.with_tensors({n: t.half() if t.is_floating_point() else t for n, t in graph.tensors.items()})


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same_bits(mine: NeuronGraph, theirs: NeuronGraph) -> None:
    assert list(mine.tensors) == list(theirs.tensors)
    for name, tensor in mine.tensors.items():
        other = theirs.tensors[name]
        assert (tensor.shape, tensor.dtype, tensor.stride()) == (other.shape, other.dtype, other.stride()), name
        assert torch.equal(bits(tensor), bits(other)), name


@pytest.mark.parametrize("make", [small, channels_last, double, half])
def test_round_trip_is_bit_exact(make: Callable[[], NeuronGraph]) -> None:
    graph = make()
    assert_same_bits(NeuronGraph.from_pyg(graph.to_pyg()), graph)
    assert_same_bits(NeuronGraph.from_pyg(graph.to_pyg(), graph.structure), graph)


def test_it_stands_alone_in_a_file() -> None:
    file = io.BytesIO()
    torch.save(small().to_pyg(), file)
    file.seek(0)
    assert_same_bits(NeuronGraph.from_pyg(torch.load(file, weights_only=False)), small())


def test_nothing_is_carried_twice() -> None:
    data = small().to_pyg()
    kept = {name for name, tensor in data.rest.items() if not tensor.is_meta}
    assert kept == {"strange", "norm.num_batches_tracked"}


def test_edges_are_typed_by_kernel_and_point_from_source_to_destination() -> None:
    graph = small()
    data = graph.to_pyg()
    data.validate()
    assert {relation for _, relation, _ in data.edge_types} == {"3x3", "1x3", "1", "identity"}
    store = data["neuron", "1x3", "neuron"]
    assert store.edge_index.shape == (2, 8 * 2)
    assert store.edge_attr.shape == (8 * 2, 3)
    block = next(block for block in graph.blocks if block.param == "grouped.weight")
    group, out, inner = 2, 1, 0
    edge = (group * 2 + out) * 2 + inner
    assert store.edge_index[:, edge].tolist() == [block.sources[group, inner], block.destinations[group, out]]
    assert_close(store.edge_attr[edge], graph.tensors["grouped.weight"][group * 2 + out, inner].flatten())


def test_columns_say_what_a_neuron_has() -> None:
    data = small().to_pyg()
    assert sorted(data.columns)[:4] == ["bias", "mean", "position", "position.1"]
    assert len(data.columns) == 5 + 36
    assert int(data["neuron"].mask.sum()) == 8 + 4 * 8 + 8 * 36 + 5
    assert not data["neuron"].x[~data["neuron"].mask].any()


def test_changed_values_come_back() -> None:
    graph = small()
    data = copy.copy(graph.to_pyg())
    data["neuron", "3x3", "neuron"].edge_attr = 2 * data["neuron", "3x3", "neuron"].edge_attr
    column = data.columns.index("bias")
    data["neuron"].x[:, column] += 1
    back = NeuronGraph.from_pyg(data).tensors
    assert_close(back["stem.weight"], 2 * graph.tensors["stem.weight"])
    assert_close(back["stem.bias"], graph.tensors["stem.bias"] + 1)
    assert_close(back["grouped.weight"], graph.tensors["grouped.weight"])
