"""The search for the families' shares: no worse than where it starts, the same by seed, factors alone."""

from __future__ import annotations

import torch

from metaprune_cli.pruning import make_plan, unit_scores
from metaprune_cli.pruning.search import searched


def start(case):
    return unit_scores(case.graph, case.model.state_dict(), "group-l2", normaliser="rank")


def test_a_family_that_matters_keeps_more(traced):
    case = traced("residual")
    units, scores = case.graph.units, start(case)
    family = next(family for family in units.families if family.locked is None and len(family.units) > 3)
    told: list[float] = []

    def left(candidate):
        return int(make_plan(case.graph, candidate, 2.0, max_ratio=0.9).kept[family.units].sum())

    found = searched(units, scores, lambda candidate: -left(candidate), 30, on_trial=told.append)
    assert left(found) > left(scores)
    assert told == sorted(told, reverse=True)
    assert told[-1] == -left(found)
    assert len(told) == 30
    for family in units.families:  # within a family nothing changes but a factor
        factors = found[family.units] / scores[family.units]
        torch.testing.assert_close(factors, factors[:1].expand_as(factors))


def test_nothing_better_is_nothing_new(traced):
    case = traced("residual")
    asked: list[float] = []

    def loss(candidate):
        asked.append(float(candidate.sum()))
        return 0.0 if len(asked) == 1 else 1.0

    assert torch.equal(searched(case.graph.units, start(case), loss, 7), start(case))
    assert len(asked) == 8


def test_the_seed_decides(traced):
    case = traced("residual")
    one, again, other = (
        searched(case.graph.units, start(case), lambda scores: float(scores.sum()), 5, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
