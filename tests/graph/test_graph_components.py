"""Connected components against a brute-force search."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaprune_cli.graph.components import components, unique_pairs

GRAPHS = st.integers(1, 30).flatmap(
    lambda count: st.tuples(
        st.just(count), st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=60)
    )
)


def as_pairs(edges: list[tuple[int, int]]) -> torch.Tensor:
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).T


def smallest_reachable(count: int, edges: list[tuple[int, int]]) -> list[int]:
    label = list(range(count))
    for _ in range(count):
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    return label


@settings(deadline=None, derandomize=True)
@given(GRAPHS)
def test_each_node_is_labelled_by_the_smallest_it_reaches(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    assert components(count, as_pairs(edges)).tolist() == smallest_reachable(count, edges)


def test_a_long_chain_in_the_worst_order() -> None:
    chain = torch.stack([torch.arange(1, 5000), torch.arange(4999)])[:, torch.randperm(4999)]
    assert not components(5000, chain).any()


@settings(deadline=None, derandomize=True)
@given(GRAPHS)
def test_unique_pairs_are_the_sorted_set(graph: tuple[int, list[tuple[int, int]]]) -> None:
    assert list(map(tuple, unique_pairs(as_pairs(graph[1])).T.tolist())) == sorted(set(graph[1]))
