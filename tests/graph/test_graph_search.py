"""Proof by search: whatever network the operators make, encoding loses nothing and removal is what masking is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from networks import Network, Recipe, Step, recipes
from torch import Tensor, nn
from torch.testing import assert_close

from metaprune_cli.graph import NeuronGraph, decode, encode
from metaprune_cli.graph.resize import fill_, resize_
from metaprune_cli.graph.slicing import alive_neurons, macs_of, params_of
from metaprune_cli.metrics.macs import count_macs, count_params
from metaprune_cli.pruning.check import check
from metaprune_cli.pruning.masking import masked_copy
from metaprune_cli.pruning.plan import Plan
from metaprune_cli.pruning.surgery import apply_plan, route_of

QUICK, THOROUGH = 80, 3000


def random_plan(graph: NeuronGraph, seed: int, share: float) -> Plan:
    """Every prunable unit goes with probability ``share``, but one of every family stays."""
    generator = torch.Generator().manual_seed(seed)
    kept = (torch.rand(graph.units.num_units, generator=generator) >= share) | ~graph.units.prunable
    for family in graph.units.families:
        if not bool(kept[family.units].any()):
            kept[family.units[int(torch.randint(family.units.numel(), (), generator=generator))]] = True
    everything = torch.ones_like(kept)
    return Plan(
        kept=kept,
        macs_before=macs_of(graph, everything),
        macs_after=macs_of(graph, kept),
        params_before=params_of(graph, everything),
        params_after=params_of(graph, kept),
        requested=1.0,
        families=(),
    )


def assert_same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert_close(dict(found), dict(expected), rtol=0, atol=0)


def assert_round_trip(net: Network, graph: NeuronGraph) -> None:
    assert_same_bits(graph.state_dict(), net.state_dict())
    assert_same_bits(decode(graph, Network(net.recipe).requires_grad_(False)).state_dict(), net.state_dict())
    tensors, document = graph.to_parts()
    read = NeuronGraph.from_parts(tensors, json.loads(json.dumps(document)))
    for other in (read, NeuronGraph.from_pyg(graph.to_pyg())):
        other_tensors, other_document = other.to_parts()
        assert_same_bits(other_tensors, tensors)
        assert other_document == document


def assert_covered_once(graph: NeuronGraph) -> None:
    """Every element is an edge or a feature once, or its entry says why (some of) its elements are verbatim."""
    for entry, tensor in graph.tensors.items():
        if entry in graph.aliases:
            continue
        times = torch.zeros(tensor.numel(), dtype=torch.int64)
        for block in graph.blocks:
            if block.param == entry:
                region = torch.arange(tensor.numel()).as_strided(block.size, block.stride, block.offset)
                times += region.flatten().bincount(minlength=tensor.numel())
        for feature in graph.features:
            if feature.name == entry:
                times += feature.elements.bincount(minlength=tensor.numel())
        assert times.max() <= 1, f"{entry}: elements are in the graph up to {int(times.max())} times"
        assert (entry in graph.verbatim) == bool((times == 0).any()), f"{entry}: verbatim, or covered, and not both"


def outputs(net: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        out = net(*inputs)
    return list(out.values()) if isinstance(out, dict) else [out] if isinstance(out, Tensor) else list(out)


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    difference = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True)) ** 0.5
    return difference / max(sum(float(e.square().sum()) for e in expected) ** 0.5, 1e-30)


def assert_removal(net: Network, graph: NeuronGraph, plan: Plan) -> Iterator[str]:
    """Removal as planned; yields what kind of removal it was."""
    small = apply_plan(net, graph, plan, net.inputs)
    inputs = tuple(t.double() if t.is_floating_point() else t for t in net.inputs)
    found = outputs(small.double(), inputs)
    assert [t.shape for t in found] == [t.shape for t in outputs(net, net.inputs)]
    assert count_params(small) == plan.params_after
    assert count_macs(small, inputs) == plan.macs_after, "closed-form MACs are not the counter's"
    alive = alive_neurons(graph, plan.kept)
    if all(bool(alive[span.neurons].all()) for span in graph.spans):
        error = relative_error(found, outputs(masked_copy(net, graph, plan.kept).double(), inputs))
        assert error < 1e-9, f"small and masked differ by {error:.2g}"
        yield "equals masked"
    shown = check(net, small, graph, plan, net.inputs)
    assert shown.error is None or shown.error < 1e-9, f"the check finds {shown.error:.2g}"
    yield route_of(small)
    if route_of(small) == "class":
        again = Network(net.recipe).double()
        saved = small.state_dict()
        resize_(again, {name: tuple(t.shape) for name, t in saved.items()})
        fill_(again, {name: t.clone() for name, t in saved.items()})
        assert relative_error(outputs(again, inputs), found) == 0, "loaded again, it computes something else"


def assert_holds(recipe: Recipe, seed: int, share: float) -> list[str]:
    """All that must be true of a network and a plan; what happened, as a list of words."""
    net = Network(recipe)
    graph = encode(net, net.inputs)
    assert_round_trip(net, graph)
    assert_covered_once(graph)
    assert graph.macs == count_macs(net, net.inputs), "the graph's MACs are not the counter's"
    plan = random_plan(graph, seed, share)
    happened = list(assert_removal(net, graph, plan))
    return happened + (["removed"] if not bool(plan.kept.all()) else [])


def search(examples: int) -> Counter[str]:
    """Look for a network and a plan for which something does not hold."""
    happened: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(recipe=recipes(), seed=st.integers(0, 99), share=st.sampled_from([0.3, 0.6, 0.1]))
    def holds(recipe: Recipe, seed: int, share: float) -> None:
        note(str(Network(recipe)))
        for word in assert_holds(recipe, seed, share):
            happened[word] += 1
            event(word)

    holds()
    return happened


def assert_not_vacuous(happened: Counter[str], examples: int) -> None:
    assert happened["removed"] > 0.7 * examples, happened
    assert happened["equals masked"] > 0.4 * examples, happened
    assert happened["program"] > 0.05 * examples, happened


@pytest.mark.timeout(1200)
def test_random_networks_and_plans() -> None:
    assert_not_vacuous(search(QUICK), QUICK)


@pytest.mark.thorough
@pytest.mark.timeout(0)
def test_thousands_of_random_networks_and_plans() -> None:
    assert_not_vacuous(search(THOROUGH), THOROUGH)


FOUND = {
    "a shuffle before groups": Recipe(
        2,
        (
            Step("channel_shuffle", 1),
            Step("input", 7),
            Step("transposed", 2, 0, 1),
            Step("conv", 3),
            Step("channel_shuffle", 1),
        ),
        "tensor",
    ),
    "heads of size one": Recipe(1, (Step("token_cut", 4, 1), Step("other_attention"))),
    "padding before a depthwise convolution": Recipe(2, (Step("move", 3), Step("depthwise")), "tensor"),
    "every other channel as a token": Recipe(1, (Step("token_cut", 0, 0, 2), Step("mixer")), "tensor"),
    "a class token in both modes": Recipe(0, (Step("class_token"), Step("cross"), Step("mixer")), "tensor"),
    "two class tokens and a cut": Recipe(1, (Step("class_token"), Step("class_token"), Step("token_cut", 1)), "tensor"),
    "a class token of width one": Recipe(0, (Step("token_cut", 3), Step("class_token")), "tensor"),
    "norm alone": Recipe(0, (Step("token_norm", 2),)),
    "class token of a program": Recipe(0, (Step("cross", 0, 7, 4), Step("class_token"))),
}
"""What the search has found and what was mended since: networks that broke something once."""


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("seed", [0, 5])
def test_what_was_found_stays_mended(name: str, seed: int) -> None:
    assert_holds(FOUND[name], seed, 0.3)
