"""Attention in the graph: heads and per-head dimensions can go, each on its own, and what is left is rectangular."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.slicing import macs_of, slice_tensors
from metaprune_cli.graph.units import Family
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.masking import mask_tensors

WIDTH, HEADS, DIM = 6, 4, 8
Mix = Callable[["Attention", Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """A residual stream of six around ``mix(model, x, context)``, whose result the projection ``out`` reads."""

    def __init__(self, mix: Mix, inner: int = HEADS * DIM, **extra: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.embed, self.mix = nn.Linear(3, WIDTH), mix
        for name, value in extra.items():
            setattr(self, name, value)
        self.out, self.head = nn.Linear(inner, WIDTH), nn.Linear(WIDTH, 2)
        self.heads, self.kv_heads, self.value_heads = HEADS, 2, HEADS

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.head(h + self.out(self.mix(self, h, x)))


def split(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads · d) -> (B, heads, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def soft(q: Tensor, k: Tensor, scale: float = 0.3) -> Tensor:
    return (q @ k.transpose(-1, -2) * scale).softmax(-1)


def separate(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    return merge(soft(q, k) @ v)


def sdpa(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    return merge(F.scaled_dot_product_attention(q, k, v, scale=0.3))


def packed(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = m.qkv(h).unflatten(-1, (3, m.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return merge(soft(q, k) @ v)


def packed_by_head(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = m.qkv(h).unflatten(-1, (m.heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind()
    return merge(soft(q, k) @ v)


def chunked(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(part, m.heads) for part in m.qkv(h).chunk(3, dim=-1))
    return merge(soft(q, k) @ v)


def packed_first(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    """As nn.MultiheadAttention: three of the whole width first, heads later."""
    q, k, v = m.qkv(h).unflatten(-1, (3, -1)).permute(2, 0, 1, 3)
    return merge(soft(split(q, m.heads), split(k, m.heads)) @ split(v, m.heads))


def einsum(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (layer(h).unflatten(-1, (m.heads, -1)) for layer in (m.q, m.k, m.v))
    scores = (torch.einsum("bnhd,bmhd->bhnm", q, k) * 0.3).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", scores, v).flatten(2)


def cross(m: Attention, h: Tensor, x: Tensor) -> Tensor:
    context = m.context(x).relu()
    q, k, v = split(m.q(h), m.heads), split(m.k(context), m.heads), split(m.v(context), m.heads)
    return merge(soft(q, k) @ v)


def positioned(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    places = torch.arange(5)[:, None] - torch.arange(5) + 4
    bias = m.table[places.reshape(-1)].reshape(5, 5, -1).permute(2, 0, 1)
    return merge((q @ k.transpose(-1, -2) * 0.3 + bias).softmax(-1) @ v)


def cosine(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
    return merge((scores * m.temperature.exp()).softmax(-1) @ v)


def gated(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    return merge(soft(q, k) @ v * m.gate(h).sigmoid().transpose(1, 2).unsqueeze(-1))


def rotate_half(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    def rotate(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        angle = torch.arange(x.size(-2), device=x.device)[:, None].double()
        return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()

    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    return merge(soft(rotate(q), rotate(k)) @ v)


def rotate_pairs(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    def rotate(x: Tensor) -> Tensor:
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        angle = torch.arange(x.size(-2), device=x.device)[:, None].double()
        turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
        return torch.stack(turned, -1).flatten(-2)

    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    return merge(soft(rotate(q), rotate(k)) @ v)


def grouped_queries(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = split(m.q(h), m.heads), split(m.k(h), m.kv_heads), split(m.v(h), m.kv_heads)
    k, v = (x.repeat_interleave(m.heads // m.kv_heads, dim=1) for x in (k, v))
    return merge(soft(q, k) @ v)


def grouped_queries_expanded(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = split(m.q(h), m.heads), split(m.k(h), m.kv_heads), split(m.v(h), m.kv_heads)
    k, v = (x[:, :, None].expand(-1, -1, m.heads // m.kv_heads, -1, -1).flatten(1, 2) for x in (k, v))
    return merge(soft(q, k) @ v)


def grouped_queries_apart(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q = m.q(h).unflatten(-1, (m.kv_heads, m.heads // m.kv_heads, -1)).permute(0, 2, 3, 1, 4)
    k, v = split(m.k(h), m.kv_heads)[:, :, None], split(m.v(h), m.kv_heads)[:, :, None]
    return (soft(q, k) @ v).permute(0, 3, 1, 2, 4).flatten(2)


def multi_query(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = split(m.q(h), m.heads), m.k(h)[:, None], m.v(h)[:, None]
    return merge(soft(q, k) @ v)


def talking(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = split(m.q(h), m.heads), split(m.k(h), m.heads), split(m.v(h), m.value_heads)
    scores = m.after(m.before((q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).softmax(2)).permute(0, 3, 1, 2)
    return merge(scores @ v)


def linear(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(layer(h), m.heads) for layer in (m.q, m.k, m.v))
    return merge((F.elu(q) + 1) @ ((F.elu(k) + 1).transpose(-1, -2) @ v))


def over_channels(m: Attention, h: Tensor, _: Tensor) -> Tensor:
    q, k, v = (split(layer(h), m.heads).transpose(-1, -2) for layer in (m.q, m.k, m.v))
    return (soft(q, k) @ v).permute(0, 3, 1, 2).flatten(2)


def projections(kv: int = HEADS * DIM, source: int = WIDTH) -> dict[str, nn.Module]:
    return {"q": nn.Linear(WIDTH, HEADS * DIM), "k": nn.Linear(source, kv), "v": nn.Linear(source, kv)}


def with_packed() -> dict[str, nn.Module]:
    return {"qkv": nn.Linear(WIDTH, 3 * HEADS * DIM)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A way to write attention, its layers, and the families (name of an entry, kind) -> prunable units."""

    mix: Mix
    layers: Callable[[], dict[str, nn.Module]]
    heads: dict[str, int]
    channels: dict[str, int]


QK_V = {"q.weight": DIM, "v.weight": DIM}
CASES = {
    "separate": Case(separate, projections, {"q.weight": HEADS}, QK_V),
    "sdpa": Case(sdpa, projections, {"q.weight": HEADS}, QK_V),
    "packed": Case(packed, with_packed, {"qkv.weight": HEADS}, {"qkv.weight": DIM}),
    "packed-by-head": Case(packed_by_head, with_packed, {"qkv.weight": HEADS}, {"qkv.weight": DIM}),
    "chunked": Case(chunked, with_packed, {"qkv.weight": HEADS}, {"qkv.weight": DIM}),
    "packed-first": Case(packed_first, with_packed, {"qkv.weight": HEADS}, {"qkv.weight": DIM}),
    "einsum": Case(einsum, projections, {"q.weight": HEADS}, QK_V),
    "cross": Case(
        cross,
        lambda: {"context": nn.Linear(3, 7), **projections(source=7)},
        {"q.weight": HEADS},
        {**QK_V, "context.weight": 7},
    ),
    "position-table": Case(
        positioned,
        lambda: {**projections(), "table": nn.Parameter(torch.randn(9, HEADS))},
        {"q.weight": HEADS, "table": HEADS},
        QK_V,
    ),
    "cosine": Case(
        cosine,
        lambda: {**projections(), "temperature": nn.Parameter(torch.randn(HEADS, 1, 1))},
        {"q.weight": HEADS, "temperature": HEADS},
        QK_V,
    ),
    "gated": Case(gated, lambda: {**projections(), "gate": nn.Linear(WIDTH, HEADS)}, {"gate.weight": HEADS}, QK_V),
    "rotary-halves": Case(rotate_half, projections, {"q.weight": HEADS}, {"q.weight": DIM // 2, "v.weight": DIM}),
    "rotary-pairs": Case(rotate_pairs, projections, {"q.weight": HEADS}, {"q.weight": DIM // 2, "v.weight": DIM}),
    "grouped-query": Case(grouped_queries, lambda: projections(2 * DIM), {"q.weight": 2, "k.weight": 2}, QK_V),
    "grouped-query-expanded": Case(
        grouped_queries_expanded, lambda: projections(2 * DIM), {"q.weight": 2, "k.weight": 2}, QK_V
    ),
    "grouped-query-apart": Case(
        grouped_queries_apart, lambda: projections(2 * DIM), {"q.weight": 2, "k.weight": 2}, QK_V
    ),
    "multi-query": Case(multi_query, lambda: projections(DIM), {"q.weight": HEADS}, {**QK_V, "k.weight": DIM}),
    "talking": Case(
        talking,
        lambda: {**projections(), "before": nn.Linear(HEADS, HEADS + 1), "after": nn.Linear(HEADS + 1, HEADS)},
        {"q.weight": HEADS, "v.weight": HEADS},
        {**QK_V, "before.weight": HEADS + 1},
    ),
    "linear": Case(linear, projections, {"q.weight": HEADS}, {}),
    "over-channels": Case(over_channels, projections, {"q.weight": HEADS}, {}),
}
every = pytest.mark.parametrize("name", CASES)


@cache
def traced(name: str) -> tuple[Attention, NeuronGraph, Tensor]:
    torch.manual_seed(0)
    model = Attention(CASES[name].mix, **CASES[name].layers()).double().eval()
    example = torch.randn(1, 5, 3, dtype=torch.float64)
    return model, without_dry_run(encode(model, example)), example


def without_dry_run(graph: NeuronGraph) -> NeuronGraph:
    """The structure before it is asked what Python's own constants allow."""
    return graph.with_locks(lock for lock in graph.locks if "its removal" not in lock.reason)


def family_of(graph: NeuronGraph, entry: str, kind: str) -> Family:
    """The family of a kind that owns the rows of an entry (or its elements as features)."""
    (family,) = (
        family
        for family in graph.units.families
        if family.kind == kind and any(name == entry and side != "in" for name, side in family.parameters)
    )
    return family


def random_kept(graph: NeuronGraph, seed: int) -> Tensor:
    """Some of the prunable units gone, at least one of each family left."""
    coins = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed))
    kept = (coins > 0.5) | ~graph.units.prunable
    for family in graph.units.families:
        kept[family.units[coins[family.units].argmax()]] = True
    return kept


@every
def test_heads_and_their_dimensions_are_families(name: str) -> None:
    _, graph, _ = traced(name)
    for kind, expected in (("heads", CASES[name].heads), ("channels", CASES[name].channels | {"embed.weight": WIDTH})):
        for entry, count in expected.items():
            family = family_of(graph, entry, kind)
            assert family.locked is None, entry
            assert family.units.numel() == count, entry
    if not CASES[name].channels:
        assert "product" in str(family_of(graph, "q.weight", "channels").locked)


@every
def test_macs_are_the_counters(name: str) -> None:
    model, graph, example = traced(name)
    model.heads, model.kv_heads, model.value_heads = HEADS, 2, HEADS
    assert graph.macs == count_macs(model, example)
    for seed in range(3):
        kept = random_kept(graph, seed)
        assert Cost.of(graph).macs(kept) == macs_of(graph, kept)


@every
@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_computes_what_the_masked_model_computes(name: str, seed: int) -> None:
    model, graph, example = traced(name)
    kept = random_kept(graph, seed)
    small = slice_tensors(graph, kept)
    model.heads, model.kv_heads, model.value_heads = HEADS, 2, HEADS
    masked = functional_call(model, mask_tensors(graph, model.state_dict(), kept), (example,))
    set_heads(model, graph, kept)
    found = functional_call(model, small, (example,))
    torch.testing.assert_close(found, masked, rtol=1e-10, atol=1e-12)


def set_heads(model: Attention, graph: NeuronGraph, kept: Tensor) -> None:
    """What Python would have to know: how many heads are left."""
    family = family_of(graph, "qkv.weight" if hasattr(model, "qkv") else "q.weight", "heads")
    left = int(kept[family.units].sum())
    model.heads, model.kv_heads = HEADS * left // family.units.numel(), left
    if model.mix is talking:
        model.value_heads = int(kept[family_of(graph, "v.weight", "heads").units].sum())


@every
def test_both_planes_of_both_planes_comes_back_from_its_parts(name: str) -> None:
    _, graph, _ = traced(name)
    again = NeuronGraph.from_parts(*graph.to_parts())
    assert torch.equal(again.units.unit_of, graph.units.unit_of)
    assert torch.equal(again.units.row_of, graph.units.row_of)
    assert [f.locked for f in again.units.families] == [f.locked for f in graph.units.families]
