"""Every model of the catalogue: encoded exactly, and pruned to what its masked original computes."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from models_people_write import CATALOGUE
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import metaprune_cli as mp
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.slicing import macs_of, params_of
from metaprune_cli.graph.trace.tracer import call
from metaprune_cli.pruning import Plan, apply_plan, check

NAMES = sorted(CATALOGUE)


@cache
def traced(name: str) -> tuple[nn.Module, Any, NeuronGraph]:
    """The model with random weights (none of them zero), its example inputs, its graph."""
    torch.manual_seed(0)
    entry = CATALOGUE[name]
    model, inputs = entry.make().eval(), entry.inputs()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "running_var" not in key and tensor.requires_grad is False:
                tensor.add_(torch.rand_like(tensor) * 0.1)
    return model, inputs, mp.encode(model, inputs)


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        result = call(model, copy.deepcopy(inputs))
    found = vars(result).values() if hasattr(result, "__dataclass_fields__") else result
    return [leaf for leaf in tree_leaves(list(found) if found is not result else found) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", NAMES)
def test_the_round_trip_is_exact(name: str) -> None:
    model, inputs, graph = traced(name)
    torch.manual_seed(1)
    decoded = mp.decode(graph, CATALOGUE[name].make().eval())
    state = model.state_dict()
    assert list(decoded.state_dict()) == list(state)
    for key, tensor in decoded.state_dict().items():
        assert tensor.dtype == state[key].dtype
        assert torch.equal(tensor, state[key])
    fresh, again = outputs(mp.decode(graph, model), inputs), outputs(model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(fresh, again, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_element_is_in_the_graph_once_or_kept(name: str) -> None:
    _, _, graph = traced(name)
    for entry, tensor in graph.tensors.items():
        if entry in graph.aliases:
            continue
        count = torch.zeros(tensor.numel(), dtype=torch.int64)
        for block in graph.blocks:
            if block.param == entry:
                region = count.as_strided(block.size, block.stride, block.offset)
                region += 1
        for feature in graph.features:
            if feature.name == entry:
                count.index_add_(0, feature.elements, torch.ones_like(feature.elements))
        assert bool((count <= 1).all())
        assert bool((count == 1).all()) or graph.verbatim[entry]


@pytest.mark.parametrize("name", NAMES)
def test_locked_families_say_why(name: str) -> None:
    _, _, graph = traced(name)
    entry = CATALOGUE[name]
    for family in graph.units.families:
        assert family.locked is None or family.locked
    reasons = [f.locked for f in graph.units.families if f.locked] + list(graph.verbatim.values())
    if entry.expected is not None:
        assert any(entry.expected in reason for reason in reasons), reasons


@pytest.mark.parametrize("name", NAMES)
def test_what_people_would_remove_can_be_removed(name: str) -> None:
    _, _, graph = traced(name)
    share = prunable_share(graph)
    assert share >= CATALOGUE[name].prunable, {f.name: f.locked for f in graph.units.families}


@pytest.mark.parametrize("name", [name for name in NAMES if CATALOGUE[name].same_macs])
def test_macs_are_the_counters(name: str) -> None:
    model, inputs, graph = traced(name)
    assert graph.macs == mp.count_macs(model, inputs)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("name", NAMES)
def test_the_small_model_computes_what_the_masked_original_does(name: str, ratio: float) -> None:
    model, inputs, graph = traced(name)
    plan = random_plan(graph, ratio)
    small = apply_plan(model, graph, plan, inputs)
    assert [t.shape for t in outputs(small, inputs)] == [t.shape for t in outputs(model, inputs)]
    result = check(model, small, graph, plan, inputs)
    assert result.comparable or not CATALOGUE[name].comparable, result.reason
    assert result.error is None or result.error < 1e-8  # a rotary table is computed in the precision that was recorded
    assert mp.count_params(small) == sum(p.numel() for p in model.parameters()) - (
        plan.params_before - plan.params_after
    )
    if CATALOGUE[name].same_macs:
        assert macs_of(graph, plan.kept) == mp.count_macs(small, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_the_small_model_trains(name: str) -> None:
    model, inputs, graph = traced(name)
    small = apply_plan(model, graph, random_plan(graph, 0.5), inputs).train()
    twice = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    assert twice
    result = call(small, copy.deepcopy(inputs))
    found = list(vars(result).values()) if hasattr(result, "__dataclass_fields__") else result
    floats = [t for t in tree_leaves(found) if isinstance(t, Tensor) and t.requires_grad]
    sum(t.abs().sum() for t in floats).backward()  # type: ignore[union-attr]
    assert any(p.grad is not None for p in small.parameters())


def prunable_share(graph: NeuronGraph) -> float:
    """The share of the trainable elements that touch a neuron that can be removed."""
    free = graph.units.prunable[graph.units.unit_of]
    touched = 0
    for block in graph.blocks:
        if block.param in graph.trainable:
            pairs = free[block.destinations][:, :, None] | free[block.sources][:, None, :]
            touched += int(pairs.sum()) * block.size[3]
    touched += sum(int(free[f.neurons].sum()) for f in graph.features if f.name in graph.trainable)
    return touched / max(sum(graph.tensors[name].numel() for name in graph.trainable), 1)


def random_plan(graph: NeuronGraph, ratio: float) -> Plan:
    """A random share of every family that can lose something; one unit of each stays."""
    generator = torch.Generator().manual_seed(round(ratio * 100))
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in graph.units.families:
        free = family.units[graph.units.prunable[family.units]]
        count = min(round(ratio * family.units.numel()), family.units.numel() - 1, free.numel())
        kept[free[torch.randperm(free.numel(), generator=generator)[:count]]] = False
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
