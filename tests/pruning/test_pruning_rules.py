from __future__ import annotations

import pytest
import torch
from torch import nn

from metaprune_cli.config import PruningRule
from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.pruning.plan import make_plan
from metaprune_cli.pruning.rules import limits_of


def plan_of(case, *rules, speedup=1.5, scope="global", seed=0, **options):
    """A plan on random scores under rules, as families by name."""
    scores = torch.rand(case.graph.units.num_units, generator=torch.Generator().manual_seed(seed))
    limits = limits_of(case.graph, rules, model=case.model, **options)
    plan = make_plan(case.graph, scores, speedup, scope=scope, limits=limits)
    return {family.name: family for family in plan.families}


def most_of(case, *rules, **options):
    """How many units of each family may go under rules."""
    most = limits_of(case.graph, rules, 0.8, model=case.model, **options).most.tolist()
    return {family.name: number for family, number in zip(case.graph.units.families, most, strict=True)}


@pytest.mark.parametrize("scope", ["global", "family"])
@pytest.mark.parametrize("match", ["expand", "expand.weight", "exp*", "re:^expand$"])
def test_what_is_ignored_keeps_everything(traced, match, scope):
    case = traced("residual")
    free = plan_of(case, speedup=1.5, scope=scope)
    assert free["expand"].after < free["expand"].before
    ignored = plan_of(case, PruningRule(match, ignore=True), speedup=1.5, scope=scope)
    assert ignored["expand"].after == ignored["expand"].before
    assert sum(family.after < family.before for family in ignored.values())


def test_a_layer_means_what_it_produces_not_what_it_reads(traced):
    most = most_of(traced("residual"), PruningRule("head", ignore=True))
    assert most["head"] == 0
    assert most["grouped"] == 6, "the head reads these"


def test_a_norm_means_the_layer_before_it(traced):
    assert most_of(traced("residual"), PruningRule("norm", ignore=True))["grouped"] == 0


def test_types_are_those_of_the_modules(traced):
    case = traced("residual")
    most = most_of(case, PruningRule("type:BatchNorm2d", ignore=True))
    assert (most["grouped"], most["expand"]) == (0, 9)
    every = most_of(case, PruningRule("type:Module", ignore=True))  # a base of them all
    assert not any(every[name] for name in ("stem", "expand", "grouped", "head"))


@pytest.mark.parametrize("seed", range(3))
def test_ratios_and_numbers_are_honoured_whatever_the_scores(traced, seed):
    case = traced("residual")
    rules = [
        PruningRule("expand", max_ratio=0.25),
        PruningRule("grouped", min_units=5),
        PruningRule("stem", min_ratio=0.5, max_ratio=0.75),
    ]
    families = plan_of(case, *rules, speedup=1.4, seed=seed)
    assert families["expand"].after >= 9
    assert families["grouped"].after >= 5
    assert 1 <= families["stem"].after <= 2


def test_the_later_rule_has_the_last_word(traced):
    case = traced("residual")
    families = plan_of(case, PruningRule("*", max_ratio=0.0), PruningRule("stem", max_ratio=0.5), speedup=1.2)
    assert {name for name, family in families.items() if family.after < family.before} == {"stem"}


@pytest.mark.parametrize("scope", ["global", "family"])
@pytest.mark.parametrize("multiple", [2, 8])
def test_what_stays_is_a_multiple(traced, multiple, scope):
    case = traced("resnet18")
    families = plan_of(case, speedup=2.0, scope=scope, round_to=multiple)
    assert all(family.after % multiple == 0 for family in families.values() if family.after < family.before)
    assert any(family.after < family.before for family in families.values())


def test_odd_widths_are_brought_to_a_multiple():
    model = nn.Sequential(nn.Linear(4, 13), nn.ReLU(), nn.Linear(13, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = encode(model, torch.randn(1, 4))
    limits = limits_of(graph, round_to=8)
    plan = make_plan(graph, torch.rand(graph.units.num_units), 1.2, limits=limits)
    assert {family.name: family.after for family in plan.families}["0"] == 8
    assert {family.name: family.after for family in plan.families}["2"] == 5, "below a multiple nothing goes"


def test_the_tied_lose_the_same_places(traced):
    case = traced("resnet18")
    rule = PruningRule("re:^layer1\\.[01]\\.conv1$", tie=True)
    families = plan_of(case, rule, speedup=2.0)
    first, second = families["layer1.0.conv1"], families["layer1.1.conv1"]
    assert first.kept == second.kept
    assert first.after < first.before


def test_families_of_different_sizes_cannot_be_tied(traced):
    with pytest.raises(InputError, match=r"(?s)different sizes.*stem: 4, expand: 12"):
        plan_of(traced("residual"), PruningRule("re:^(stem|expand)$", tie=True))


def test_rules_that_match_nothing_are_all_named(traced):
    rules = [PruningRule("stam", ignore=True), PruningRule("type:Conv9d", max_ratio=0.1), PruningRule("stem")]
    message = r"(?s)2 rules match nothing.*'stam', did you mean 'stem'.*type:Conv9d"
    with pytest.raises(InputError, match=message) as caught:
        plan_of(traced("residual"), *rules)
    assert caught.value.exit_code == 2


def test_an_expression_that_is_none_is_refused(traced):
    with pytest.raises(InputError, match="regular expression cannot be read"):
        plan_of(traced("residual"), PruningRule("re:(", ignore=True))


def test_more_cannot_have_to_go_than_may(traced):
    with pytest.raises(InputError, match=r"(?s)asks for more to be removed.*stem: 2 of at most 1"):
        plan_of(traced("residual"), PruningRule("stem", min_ratio=0.5, max_ratio=0.25))


def test_heads_can_be_kept(traced):
    case = traced("vit")
    assert any(family.kind == "heads" for family in case.graph.units.families)
    kept = limits_of(case.graph, [PruningRule("kind:heads", ignore=True)])
    heads = [number for number, family in enumerate(case.graph.units.families) if family.kind == "heads"]
    assert not kept.most[heads].any()
    assert limits_of(case.graph).most[heads].any()
