from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaprune_cli.errors import InputError, NumericsError, TargetError
from metaprune_cli.graph import encode
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.plan import make_plan, select
from metaprune_cli.pruning.ranking import plain_limits, removal_order

SCOPES = ["global", "family"]


def random_scores(graph, seed=0):
    return torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["residual", "resnet18", "mobilenet_v2", "densenet121"])
def test_invariants_of_plans(traced, name, scope):
    graph = traced(name).graph
    units = graph.units

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**31), target=st.floats(1.01, 3.0), max_ratio=st.floats(0.8, 1.0))
    def holds(seed, target, max_ratio):
        scores = random_scores(graph, seed)
        plan = make_plan(graph, scores, target, scope=scope, max_ratio=max_ratio)
        assert plan.speedup >= target
        assert plan.kept[~units.prunable].all(), "locked units stay"
        for family, planned in zip(units.families, plan.families, strict=True):
            assert planned.before == len(family.units)
            assert planned.after == len(planned.kept) == int(plan.kept[family.units].sum()) >= 1
            assert planned.before - planned.after <= max_ratio * planned.before + 1e-9

        order = removal_order(units, scores, scope, plain_limits(units, max_ratio))
        assert order.ends.tolist() == list(range(1, len(order.units) + 1))
        lowest = select(graph, scores, target, scope, max_ratio)
        gone = int((~lowest).sum())
        assert not lowest[order.units[:gone]].any(), "the lowest in the ranking go"
        one_fewer = torch.ones_like(plan.kept)
        one_fewer[order.units[: gone - 1]] = False
        assert graph.macs / Cost.of(graph).macs(one_fewer) < target, "no more go than are needed"
        assert (plan.kept | ~lowest).all(), "what is not needed after all stays"

    holds()


def test_global_scope_takes_the_lowest_scores(traced):
    graph = traced("resnet18").graph
    scores = random_scores(graph)
    kept = select(graph, scores, 1.5, "global")
    removed = ~kept
    assert scores[removed].max() < scores[kept & graph.units.prunable].min() + 1e-6


def test_family_scope_takes_the_same_fraction_of_each(traced):
    graph = traced("resnet18").graph
    plan = make_plan(graph, random_scores(graph), 2.0, scope="family")
    free = [family for family in plan.families if family.locked is None]
    fractions = [1 - family.after / family.before for family in free]
    assert max(fractions) - min(fractions) <= 1 / min(family.before for family in free)


def test_equal_scores_give_the_same_plan_every_time(traced):
    graph = traced("resnet18").graph
    scores = torch.ones(graph.units.num_units)
    assert torch.equal(select(graph, scores, 2.0), select(graph, scores, 2.0))


def test_the_scores_scale_does_not_matter(traced):
    graph = traced("residual").graph
    scores = random_scores(graph)
    assert torch.equal(select(graph, scores, 1.5), select(graph, 8 * scores, 1.5))


def test_a_plan_is_json(traced):
    plan = make_plan(traced("mlp").graph, random_scores(traced("mlp").graph), 1.5)
    document = json.loads(json.dumps(plan.to_document()))
    assert document["requested"] == 1.5
    assert document["speedup"] == plan.macs_before / plan.macs_after
    assert [f["after"] for f in document["families"]] == [f.after for f in plan.families]


def test_a_target_out_of_reach_names_the_nearest_which_can_be_met(traced):
    graph = traced("residual").graph
    scores = random_scores(graph)
    with pytest.raises(
        TargetError, match=r"(?s)speed-up of 1000× cannot be met.*nearest feasible.*ask for .*×"
    ) as caught:
        make_plan(graph, scores, 1000.0)
    assert caught.value.exit_code == 3
    nearest = float(str(caught.value.details["next step"]).split("×")[0].split()[-1])
    assert select(graph, scores, nearest).any()


def test_a_lower_max_ratio_lowers_what_is_feasible(traced):
    graph = traced("residual").graph
    with pytest.raises(TargetError, match="at most 17% of each family"):
        select(graph, random_scores(graph), 3.0, max_ratio=0.2)


@pytest.mark.parametrize("target", [1.0, 0.5, -1.0, float("nan")])
def test_removing_nothing_is_an_error(traced, target):
    graph = traced("mlp").graph
    with pytest.raises(TargetError, match="Nothing would be removed"):
        make_plan(graph, random_scores(graph), target)


def test_a_model_of_locked_units_is_an_error():
    graph = encode(torch.nn.Linear(3, 2), torch.randn(1, 3))
    with pytest.raises(TargetError, match=r"(?s)every unit is locked.*output of the model"):
        select(graph, random_scores(graph), 2.0)


def test_where_no_unit_has_weights_the_error_says_what_the_weights_meet():
    class Quantised(torch.nn.Linear):
        def forward(self, x):
            return super().forward(torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127))

    graph = encode(torch.nn.Sequential(Quantised(3, 4), torch.nn.ReLU(), Quantised(4, 2)), torch.randn(1, 3))
    with pytest.raises(TargetError, match=r"(?s)every unit is locked.*meets the operator aten\.fake_quantize"):
        select(graph, random_scores(graph), 2.0)


@pytest.mark.parametrize("max_ratio", [0.0, -0.1, 1.1, float("nan")])
def test_max_ratio_must_be_a_fraction(traced, max_ratio):
    graph = traced("mlp").graph
    with pytest.raises(InputError, match="max_ratio is not a fraction"):
        select(graph, random_scores(graph), 2.0, max_ratio=max_ratio)


def test_scores_must_fit_and_be_finite(traced):
    graph = traced("mlp").graph
    with pytest.raises(InputError, match="one per unit"):
        select(graph, torch.ones(3), 2.0)
    scores = random_scores(graph)
    scores[graph.units.prunable.nonzero()[0]] = torch.nan
    with pytest.raises(NumericsError, match=r"(?s)score is not finite.*family 0"):
        select(graph, scores, 2.0)
