"""Kinds met in modules of strangers: places of the largest, borrowed sizes, distances, tokens written over, graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.graph import NeuronGraph


class Net(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.act = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *given: Tensor) -> Any:
        return self.act(self, *given)


def made(forward: Callable[..., Any], **parts: Any) -> nn.Module:
    return Net(forward, **parts).eval()


def locked(graph: NeuronGraph) -> dict[str, str | None]:
    return {family.name: family.locked for family in graph.units.families}


def test_neurons_stay_where_the_place_of_the_largest_is_used() -> None:
    def routed(m: Any, x: Tensor) -> Tensor:
        weight, place = m.gate(x).softmax(-1).max(-1)
        return m.o(m.scale[place] * weight[:, None])  # type: ignore[no-any-return]

    def largest(m: Any, x: Tensor) -> Tensor:
        return m.o(m.gate(x).view(-1, 6, 4).max(-1)[0])  # type: ignore[no-any-return]

    def returned(m: Any, x: Tensor) -> Any:
        return m.gate(x).max(-1)

    scale = nn.Parameter(torch.randn(24, 6))
    by_place = made(routed, gate=nn.Linear(8, 24), o=nn.Linear(6, 3), scale=scale)
    assert locked(mp.encode(by_place, torch.randn(1, 8)))["gate"] == "which neuron is largest or smallest is asked"
    assert locked(mp.encode(made(returned, gate=nn.Linear(8, 24)), torch.randn(1, 8)))["gate"] is not None
    maxout = made(largest, gate=nn.Linear(8, 24), o=nn.Linear(6, 3))
    assert locked(mp.encode(maxout, torch.randn(1, 8)))["gate"] is None


def test_a_column_as_long_as_a_neuron_is_none() -> None:
    def timed(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.o(m.b(torch.cat([h, torch.full_like(h[:, :1], 0.5)], 1)).tanh())  # type: ignore[no-any-return]

    model, x = made(timed, a=nn.Linear(8, 16), b=nn.Linear(17, 12), o=nn.Linear(12, 3)), torch.randn(1, 8)
    graph = mp.encode(model, x)
    family = next(f for f in graph.units.families if f.name == "a")
    assert int(graph.units.prunable[family.units].sum()) == 15
    pruned = mp.prune(model, x, speedup=2.0)
    assert pruned.checked.error is not None
    assert pruned.model(torch.randn(3, 8)).shape == (3, 3)


def test_distances_lose_the_neurons_that_both_sides_lose() -> None:
    def nearest(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        weights = torch.cdist(h, h).neg().softmax(-1)
        return m.o(weights @ h) * torch.cdist(h, m.points).amin(-1, keepdim=True)  # type: ignore[no-any-return]

    points = nn.Parameter(torch.randn(1, 5, 16))
    model, x = made(nearest, a=nn.Linear(8, 16), o=nn.Linear(16, 3), points=points), torch.randn(1, 7, 8)
    assert locked(mp.encode(model, x))["a"] is None
    pruned = mp.prune(model, x, speedup=2.0)
    assert pruned.checked.error is not None
    assert (
        dict(pruned.model.named_parameters())["points"].shape[-1]
        == dict(pruned.model.named_parameters())["a.bias"].numel()
    )


def test_a_learned_token_goes_with_what_is_written_over_it() -> None:
    def masked(m: Any, x: Tensor) -> Tensor:
        seen = x[..., 0] > 0
        out = m.token.expand(*seen.shape, -1).clone()
        out[seen] = m.a(x[seen])
        return m.o(out.relu())  # type: ignore[no-any-return]

    token = nn.Parameter(torch.randn(16))
    model, x = made(masked, a=nn.Linear(8, 16), o=nn.Linear(16, 3), token=token), torch.randn(1, 9, 8)
    pruned = mp.prune(model, x, speedup=2.0)
    assert dict(pruned.model.named_parameters())["token"].numel() < 16
    assert pruned.checked.error is not None


def graph_attention(m: Any, x: Tensor, edges: Tensor) -> Tensor:
    h = m.w(x).view(-1, 4, 8)
    source, target = edges
    weight = (torch.cat([h[source], h[target]], -1) * m.a).sum(-1).exp()
    total = torch.zeros(x.size(0), 4).index_add_(0, target, weight)
    out = torch.zeros_like(h).index_add_(0, target, h[source] * (weight / total[target])[..., None])
    return m.o(out.flatten(1))  # type: ignore[no-any-return]


def test_nodes_and_edges_vary_each_by_itself_and_heads_go() -> None:
    attention = nn.Parameter(torch.randn(4, 16) * 0.1)
    model = made(graph_attention, w=nn.Linear(6, 32), o=nn.Linear(32, 3), a=attention)
    inputs = torch.randn(10, 6), torch.randint(0, 10, (2, 20))
    graph = mp.encode(model, inputs)
    assert {family.kind for family in graph.units.families if family.name == "w" and family.locked is None} == {
        "heads",
        "channels",
    }
    pruned = mp.prune(model, inputs, speedup=2.0)
    assert pruned.report["route"] == "program"
    assert pruned.model(torch.randn(17, 6), torch.randint(0, 17, (2, 33))).shape == (17, 3)


def test_boxes_drawn_for_a_check_are_read_within_their_map() -> None:
    def pooled(m: Any, x: Tensor, boxes: Tensor) -> Tensor:
        return m.o(torchvision.ops.roi_align(m.a(x).relu(), boxes, 2, 0.5, 2).flatten(1))  # type: ignore[no-any-return]

    model = made(pooled, a=nn.Conv2d(3, 16, 3, 2, 1), o=nn.Linear(64, 3))
    pruned = mp.prune(model, (torch.randn(1, 3, 16, 16), torch.tensor([[0, 1.0, 1, 9, 9]])), speedup=2.0)
    assert pruned.checked.error is not None
