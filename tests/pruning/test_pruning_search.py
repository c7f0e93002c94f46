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

    def left(lifts):
        return int(
            make_plan(case.graph, scores * lifts.exp()[units.family_of], 2.0, max_ratio=0.9).kept[family.units].sum()
        )

    found = searched(len(units.families), lambda lifts: -left(lifts), 30, on_trial=told.append)
    assert left(found) > left(torch.zeros(len(units.families)))
    assert told == sorted(told, reverse=True)
    assert told[-1] == -left(found)
    assert len(told) == 30


def test_nothing_better_is_nothing_new():
    asked: list[float] = []

    def loss(lifts):
        asked.append(float(lifts.sum()))
        return 0.0 if len(asked) == 1 else 1.0

    assert torch.equal(searched(5, loss, 7), torch.zeros(5))
    assert len(asked) == 8


def test_a_start_that_cannot_be_judged_is_left():
    def loss(lifts):
        return float("nan") if not lifts.any() else 1.0

    assert searched(5, loss, 3).any()


def test_the_seed_decides():
    one, again, other = (searched(5, lambda lifts: float(lifts.sum()), 5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
