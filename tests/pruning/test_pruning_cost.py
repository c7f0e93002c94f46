from __future__ import annotations

import math

import pytest
import torch

from metaprune_cli.graph.slicing import macs_of
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.pruning.cost import Cost, speedup
from metaprune_cli.pruning.plan import make_plan
from metaprune_cli.pruning.surgery import apply_plan


@pytest.mark.parametrize("name", ["mlp", "residual", "vit", "resnet18", "mobilenet_v2", "densenet121"])
def test_prepared_cost_equals_the_graphs_own_formula(traced, name):
    graph = traced(name).graph
    cost = Cost.of(graph)
    assert cost.macs(torch.ones(graph.units.num_units, dtype=torch.bool)) == graph.macs
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        kept = torch.rand(graph.units.num_units, generator=generator) > 0.4
        assert cost.macs(kept) == macs_of(graph, kept)


@pytest.mark.parametrize("name", ["residual", "vit", "resnet18", "mobilenet_v2"])
def test_planned_macs_equal_the_counters(traced, name):
    case = traced(name)
    scores = torch.rand(case.graph.units.num_units, generator=torch.Generator().manual_seed(1))
    plan = make_plan(case.graph, scores, 1.5)
    assert plan.macs_after == count_macs(apply_plan(case.model, case.graph, plan, case.inputs), case.inputs)


def test_speedup_of_nothing_left_is_infinite():
    assert speedup(10, 4) == 2.5
    assert speedup(10, 0) == math.inf
