"""Which arms are compared: those that were made alike; of the others, what differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluated import row, three_arms

from metaprune_cli.methods import registry
from metaprune_cli.methods.base import Method
from metaprune_cli.reports.page import Contents, html
from metaprune_cli.reports.picture import arm_styles
from metaprune_cli.reports.report import markdown, summary_tables, unequal_lines
from metaprune_cli.reports.rows import Row
from metaprune_cli.reports.summary import Summary, common_repair, curve, metrics, summarise
from metaprune_cli.workflows.lineage import descent

DICE = Method(name="dice", about="", noun="pair of dice", command="throw", proposes=("units",), done="thrown for")
PRUNE = {"command": "prune", "input": "net.safetensors", "requested": 2.0}


def pairs(summary: Summary) -> list[tuple[str, str]]:
    return [(one.arm, one.against) for one in summary.differences]


def apart(rows: Sequence[Row], *against: str) -> list[tuple[str, str, tuple[str, ...]]]:
    found = summarise(rows, against).unequal
    return [(one.arm, one.against, tuple(name for name, *_ in one.settings)) for one in found]


def test_every_method_is_compared_with_every_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "METHODS", (registry.METHODS[0], DICE))
    rows = [row("a", arm) for arm in ("plain", "uniform", "metanet", "dice")]
    summary = summarise(rows)
    assert summary.arms == ["plain", "uniform", "metanet", "dice"]
    assert pairs(summary) == [(ours, theirs) for ours in ("metanet", "dice") for theirs in ("plain", "uniform")]
    assert summary_tables(summary)[1].title == "Gain from the metanetwork or pair of dice: pruned and finetuned"
    assert "- **dice**: thrown for." in markdown(rows, summary, {})
    assert list(curve(summary, "finetuned")[0]) == ["speedup", "plain", "uniform", "metanet", "dice"]
    styles = arm_styles(summary.arms)
    assert len(set(styles.values())) == len(styles)
    assert styles["dice"][1] == styles["metanet"][1]  # what a method did has its marker


def test_units_that_go_in_training_need_no_repair_to_be_compared() -> None:
    """What trains a model while it removes units leaves nothing to repair; the others are repaired, all or none."""
    arms = ("plain", "metanet")
    rows = [*(row("a", f"{arm} repaired", repair="least-squares") for arm in arms), row("a", "dhp")]
    named, words = common_repair(rows)
    assert [one.arm for one in named] == ["plain", "metanet", "dhp"]
    assert "not trained while being pruned" in words["Repaired"]
    summary = summarise(named)
    assert pairs(summary) == [("metanet", "plain"), ("dhp", "plain")]
    assert summary.unequal == ()


def test_a_method_that_needs_a_search_has_it_in_its_name() -> None:
    whole = {"command": "zoo", "input": None}
    search = {"command": "search", "input": "net.safetensors", "requested": 2.0, "criterion": "group-l2"}
    learnt = {"command": "pruning-net", "input": "net.safetensors", "epochs": 3}
    for lineage, arm in (
        ((whole, search), "searched"),
        ((whole, learnt, search), "pruningnet"),
        ((whole, search | {"method": "pruningnet"}), "pruningnet"),
        ((whole, search | {"weights": "scratch", "method": "pruningnet"}), "pruningnet from-scratch"),
    ):
        assert descent(lineage, Path("x.safetensors")).arm == arm


def test_any_arm_is_compared_with_any_other() -> None:
    summary = summarise(three_arms(), ("uniform", "metanet"))
    assert pairs(summary)[:5] == [
        *(("plain", "uniform"), ("plain", "metanet"), ("uniform", "metanet")),
        *(("metanet", "plain"), ("metanet", "uniform")),
    ]
    figures = metrics(summary)["finetuned"]
    assert list(figures)[3:] == [f"{ours}_minus_{theirs}" for ours, theirs in pairs(summary)[:5]]
    assert set(figures["plain_minus_uniform"]["4x"]) == set(figures["metanet_minus_plain"]["4x"])
    assert figures["uniform_minus_metanet"]["4x"]["top1"] == -figures["metanet_minus_uniform"]["4x"]["top1"]
    assert summary_tables(summary)[1].title == "Differences between arms: pruned and finetuned"


def test_what_is_asked_for_is_added_to_what_is_compared_anyway() -> None:
    before, after = (metrics(summarise(three_arms(), against)) for against in ((), ("uniform",)))
    for step, arms in before.items():
        assert {name: after[step][name] for name in arms} == arms
        assert set(after[step]) - set(arms) <= {"plain_minus_uniform"}


@pytest.mark.parametrize(
    ("ours", "theirs", "differing"),
    [
        ({"repair": "bias"}, {}, "repair bias and none"),
        ({"repair": "bias"}, {"repair": "least-squares"}, "repair bias and least-squares"),
        ({"zeros": "2:4"}, {}, "zeros 2:4 and none"),
        ({"rounds": "4"}, {}, "rounds 4 and 1"),
        ({"quantity": "params"}, {}, "quantity params and macs"),
        ({"teacher": "a.pt", "ema": "0.9"}, {"ema": "0.9"}, "teacher a.pt and none"),
        ({"epochs": 6}, {"epochs": 3, "mixup": "0.2"}, "epochs 6 and 3, mixup none and 0.2"),
    ],
)
def test_what_was_made_under_other_conditions_is_no_pair(
    ours: dict[str, Any], theirs: dict[str, Any], differing: str
) -> None:
    rows = [row("a", "metanet", **ours), row("a", "plain", **theirs)]
    summary = summarise(rows)
    assert summary.differences == ()
    line = (
        "Not compared: metanet minus plain at 2.00x, pruned and finetuned (models: 1); their settings differ: "
        f"{differing}."
    )
    assert unequal_lines(summary) == [line]
    assert line in markdown(rows, summary, {}).replace("\\", "")
    contents = Contents(rows, summary, {}, {one.name: () for one in rows}, (), "metaprune eval", {})
    assert line in html(contents)
    json.dumps(summary.unequal[0].record(), allow_nan=False)


def test_models_pair_with_those_that_were_made_as_they_were() -> None:
    """Of each origin one; what nobody asked for and has a partner goes without saying."""
    made = ({}, {"repair": "bias"})
    rows = [row("a", arm, **settings) for arm in ("plain", "metanet") for settings in made]
    summary = summarise(rows)
    assert [one.headline.count for one in summary.differences] == [1]
    assert summary.unequal == ()
    named = [row("a", f"{arm}{' repaired' * bool(s)}", **s) for arm in ("plain", "metanet") for s in made]
    assert pairs(summarise(named)) == [("metanet", "plain"), ("metanet repaired", "plain repaired")]
    assert apart(named) == []
    assert apart(named, "plain repaired") == [
        ("plain", "plain repaired", ("repair",)),
        ("metanet", "plain repaired", ("repair",)),
    ]


def test_models_without_a_partner_are_named_beside_those_that_have_one() -> None:
    rows = [row(origin, "plain") for origin in "ab"] + [row("a", "metanet"), row("b", "metanet", ema="0.9")]
    further = [row("b", "plain", requested=4.0), row("b", "metanet", requested=4.0, ema="0.9")]
    summary = summarise([*rows, *further])
    assert [(one.requested, one.headline.count) for one in summary.differences] == [(2.0, 1)]
    (one,) = summary.unequal
    assert (one.speedups, one.models, one.settings) == ((2.0, 4.0), 1, (("ema", "0.9", "none"),))


def test_short_and_full_finetuning_pair_with_their_own() -> None:
    rows = [row("a", arm, epochs=epochs) for arm in ("plain", "metanet") for epochs in (2, 10)]
    summary = summarise(rows)
    assert pairs(summary) == [("metanet", "plain")] * 2
    assert [one.step for one in summary.differences] == ["finetuned-2", "finetuned-10"]
    assert summary.unequal == ()
    assert apart([row("a", "plain", epochs=2), row("a", "metanet", epochs=10)]) == [("metanet", "plain", ("epochs",))]


def test_the_settings_are_the_lineages() -> None:
    tuned = {"command": "finetune", "epochs": 5, "teacher": "net.pt", "ema": 0.9, "patience": 3}
    zeroed = {"command": "prune", "kind": "n:m", "pattern": "2:4", "sparsity": 0.5}
    found = descent((PRUNE, PRUNE | {"repair": "bias", "quantity": "params"}, zeroed, tuned), Path("x"))
    assert found.settings == {
        "repair": "bias",
        "quantity": "params",
        "rounds": "2",
        "zeros": "2:4",
        "teacher": "net.pt",
        "ema": "0.9",
        "patience": "3",
    }
    assert descent((PRUNE | {"criterion": "taylor", "scope": "family", "search": 4},), Path("x")).settings == {}
    assert descent((PRUNE, tuned | {"epochs": 0}), Path("x")).settings == {}


def test_settings_are_no_figures_of_a_row() -> None:
    assert "settings" not in row("a", repair="bias").record()
