"""Rounds: how far each goes, and that all of them together keep to the limits of the whole model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from metaprune_cli.config import PruningRule
from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning.plan import make_plan
from metaprune_cli.pruning.rounds import factors, limits_left, room_of
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.scoring import left_of_scores
from metaprune_cli.pruning.surgery import apply_plan
from metaprune_cli.pruning.targets import Target

SCHEDULES = ("geometric", "linear", "cubic")


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(total=st.floats(1.1, 50), rounds=st.integers(1, 12))
def test_rounds_rise_to_the_whole(schedule: str, total: float, rounds: int) -> None:
    found = factors(total, rounds, schedule)
    assert len(found) == rounds
    assert all(later > earlier for earlier, later in zip((1.0, *found), found, strict=False))
    assert found[-1] == pytest.approx(total)


def test_what_the_schedules_are() -> None:
    assert factors(16, 4, "geometric") == pytest.approx((2, 4, 8, 16))
    assert [1 / x for x in factors(5, 4, "linear")] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert [1 / x for x in factors(5, 2, "cubic")] == pytest.approx([1 - 0.8 * 7 / 8, 0.2])


def test_limits_hold_for_all_rounds_together() -> None:
    arch = Architecture("cifar:resnet8", {"width": 1.0, "in_channels": 1}, (1, 8, 8))
    model, example = build(arch).eval(), torch.zeros(1, 1, 8, 8)
    first = encode(model, example)
    halved = [family for family in first.units.families if family.locked is None][-1]
    rules = (PruningRule(halved.name, min_ratio=0.5),)
    room = room_of(first, limits_of(first, rules, 0.6))
    graph, rest = first, 1.3**3
    for _ in range(3):
        limits = limits_left(graph, limits_of(graph, rules, 0.6), room)
        scores = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(0))
        plan = make_plan(graph, scores, Target("macs", factor=1.3), limits=limits)
        model = apply_plan(model, graph, plan, example)
        rest /= plan.speedup
        graph = encode(model, example)
    assert rest <= 1 + 1e-9
    left = {family.name: len(family.units) for family in graph.units.families}
    for family in first.units.families:
        assert left[family.name] >= len(family.units) - int(0.6 * len(family.units) + 1e-9)
    assert left[halved.name] <= len(halved.units) // 2


def test_what_is_left_of_scores_is_in_the_order_of_the_smaller_model() -> None:
    arch = Architecture("cifar:resnet8", {"width": 0.5, "in_channels": 1}, (1, 8, 8))
    model, example = build(arch).eval(), torch.zeros(1, 1, 8, 8)
    graph = encode(model, example)
    # a unit's score is what its own weights say, so that the smaller model can tell it again
    mine = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(1))
    plan = make_plan(graph, mine, 2.0)
    with torch.no_grad():
        norm = model.get_parameter("layer2.0.bn1.weight")
        norm.copy_(torch.arange(1.0, len(norm) + 1))
    small = apply_plan(model, graph, plan, example)
    left = encode(small, example)
    name = "layer2.0.conv1"
    family = next(family for family in graph.units.families if family.name == name)
    numbered = torch.zeros(graph.units.num_units)
    numbered[family.units] = torch.arange(1.0, len(family.units) + 1)
    found = left_of_scores(numbered, graph, plan.kept, left)
    assert found is not None
    survivors = next(family for family in left.units.families if family.name == name)
    assert found[survivors.units].equal(small.get_parameter("layer2.0.bn1.weight"))
    assert left_of_scores(numbered, graph, plan.kept, graph) is None


def test_families_of_one_name_keep_their_own_scores() -> None:
    model, example = (
        nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
        torch.zeros(1, 3),
    )
    graph = encode(model, example)
    scores = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(0))
    plan = make_plan(graph, scores, 1.5)
    left = encode(apply_plan(model, graph, plan, example), example)
    expected = left_of_scores(scores, graph, plan.kept, left)
    assert expected is not None
    for traced in (graph, left):
        for family in traced.units.families:
            object.__setattr__(family, "name", "one of several")
    found = left_of_scores(scores, graph, plan.kept, left)
    assert found is not None
    assert torch.equal(found, expected)
    assert sorted(found.tolist()) == sorted(scores[plan.kept].tolist())
