"""Slices from index lists alone are those that full masks give: on networks, and on regions that none would have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph import NeuronGraph, encode, slicing
from metaprune_cli.graph.slicing import kept_indices, masks, slice_tensors
from metaprune_cli.graph.structure import EdgeBlock, Feature, Layer
from metaprune_cli.graph.trace.labels import Elements, affine


class Packed(nn.Module):
    """Attention with packed q, k and v, heads one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out, self.head = (nn.Linear(a, b) for a, b in ((5, 8), (8, 24), (8, 8), (8, 3)))
        self.position = nn.Parameter(torch.randn(1, 4, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.position
        q, k, v = self.qkv(h).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.head((h + self.out(mixed)).mean(1))


class Branches(nn.Module):
    """Concatenation (of feature maps, then flattened), groups, depthwise and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.depthwise, self.norm = nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.BatchNorm2d(20)
        self.up, self.head = nn.ConvTranspose2d(20, 4, 2, stride=2, groups=2), nn.Linear(4 * 36 + 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        both = self.norm(torch.cat([self.grouped(h), self.depthwise(h)], 1)).relu()
        return self.head(torch.cat([self.up(both).flatten(1), h.mean((2, 3))], 1))


class Flat(nn.Module):
    """A classifier on a feature map flattened with its positions first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 5, 2), nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().permute(0, 2, 3, 1).flatten(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "packed": (Packed, (1, 4, 5)),
    "branches": (Branches, (1, 2, 3, 3)),
    "flat": (Flat, (1, 2, 3, 3)),
}


@cache
def graph_of(name: str) -> NeuronGraph:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    return encode(make().eval(), torch.randn(shape))


def by_masks(graph: NeuronGraph, kept: Tensor) -> dict[str, Tensor] | None:
    """The slow reference; None where the survivors of an entry are not rectangular."""
    sliced = dict(graph.tensors)
    for name, mask in masks(graph, kept).items():
        try:
            indices = kept_indices(mask)
        except NumericsError:
            return None
        for d, index in enumerate(indices):
            sliced[name] = sliced[name].index_select(d, index)
    return sliced


def by_indices(graph: NeuronGraph, kept: Tensor) -> dict[str, Tensor] | None:
    try:
        return slice_tensors(graph, kept)
    except NumericsError:
        return None


def agree(graph: NeuronGraph, kept: Tensor) -> bool:
    """Check that both give the same; returns whether they give tensors."""
    expected, found = by_masks(graph, kept), by_indices(graph, kept)
    assert (expected is None) == (found is None)
    if expected is None or found is None:
        return False
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    return True


@pytest.mark.parametrize("name", NETWORKS)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.2, 0.5, 0.9]))
def test_every_plan_cuts_what_the_masks_say(name: str, seed: int, share: float) -> None:
    graph = graph_of(name)
    coins = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed))
    assert agree(graph, (coins < share) | ~graph.units.prunable)
    agree(graph, coins < share)  # locked units go too, whole families, inputs and outputs: holes are errors in both


def region(entry: str, index: Tensor, pool: int, draw: torch.Generator) -> EdgeBlock | Feature:
    """One owner of these elements: a block where they lie on a grid of four axes, else features; random neurons."""
    while index.dim() < 4:
        index = index.unsqueeze(int(torch.randint(index.dim() + 1, (), generator=draw)))
    grid = affine(Elements(entry, index))
    if grid is None or int(torch.randint(4, (), generator=draw)) == 0:
        neurons = torch.randint(1, pool, (index.numel(),), generator=draw)
        return Feature(entry, "scale", index.reshape(-1), neurons)
    groups, out, into, taps = index.shape
    return EdgeBlock(
        param=entry,
        size=(groups, out, into, taps),
        stride=(grid[1][0], grid[1][1], grid[1][2], grid[1][3]),
        offset=grid[0],
        destinations=torch.randint(1, pool, (groups, out), generator=draw),
        sources=torch.randint(1, pool, (groups, into), generator=draw),
        kernel=(taps,),
        positions=1,
    )


@cache
def skeleton() -> NeuronGraph:
    return encode(nn.Linear(1, 1, bias=False), torch.zeros(1, 1))


def odd_graph(seed: int) -> NeuronGraph:
    """One parameter of random shape, permuted, merged and cut into regions in random ways."""
    draw = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    shape = [number(1, 5) for _ in range(number(1, 5))]
    index = torch.arange(torch.Size(shape).numel()).view(shape).permute(*torch.randperm(len(shape), generator=draw))
    if index.dim() > 1 and number(0, 2):
        first = number(0, index.dim() - 1)
        index = index.flatten(first, first + 1)
    cuts, axis = number(1, 4), number(0, index.dim())
    pieces = [index[(slice(None),) * axis + (slice(k, None, cuts),)] for k in range(cuts)]
    if number(0, 2):
        pieces = list(index.chunk(cuts, axis))
    pool = number(2, 6)
    owners = [region("w", piece, pool, draw) for piece in pieces if piece.numel() and number(0, 8)]
    structure = dataclasses.replace(
        skeleton().structure,
        layers=(Layer("all", 0, pool),),
        blocks=tuple(owner for owner in owners if isinstance(owner, EdgeBlock)),
        features=tuple(owner for owner in owners if isinstance(owner, Feature)),
        locks=(),
    )
    return NeuronGraph(structure, {"w": torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)})


@settings(deadline=None, derandomize=True, max_examples=400)
@given(seed=st.integers(0, 2**31))
def test_odd_regions_are_cut_as_the_masks_say(seed: int) -> None:
    graph = odd_graph(seed)
    coins = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed + 1))
    agree(graph, coins < 0.7)


def test_the_odd_regions_are_of_all_kinds() -> None:
    outcomes = set()
    for seed in range(300):
        graph = odd_graph(seed)
        kept = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed + 1)) < 0.7
        found = by_indices(graph, kept)
        cut = found is not None and 0 < found["w"].numel() < graph.tensors["w"].numel()
        outcomes.add((bool(graph.blocks), found is not None, cut))
    assert outcomes >= {(True, True, True), (True, False, False), (False, False, False), (False, True, True)}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_mask_is_made_where_indices_decide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(name)
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in graph.units.families:
        kept[family.units[graph.units.prunable[family.units]][:1]] = False
    expected = by_masks(graph, kept)
    monkeypatch.setattr(slicing, "_mask", lambda *_: pytest.fail("a full mask"))
    found = slice_tensors(graph, kept)
    assert expected is not None
    assert all(torch.equal(expected[name], found[name]) for name in expected)
