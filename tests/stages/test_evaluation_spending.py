"""What models took to make: epochs of the whole and of what is left, candidates asked, what was learnt once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from evaluated import row

from metaprune_cli.reports.report import learnt_lines, summary_tables
from metaprune_cli.reports.summary import summarise
from metaprune_cli.workflows.spending import LEARNT, TRIED, learnt, spent

ZOO: dict[str, Any] = {"command": "zoo", "input": None}
PRUNE: dict[str, Any] = {"command": "prune", "requested": 2.0}
TUNE: dict[str, Any] = {"command": "finetune", "epochs": 5}
WHOLE, LEFT, IMAGES = 1000, 400, 10


@pytest.mark.parametrize(
    ("lineage", "expected"),
    [
        ([ZOO, PRUNE], 0),
        ([ZOO, PRUNE, TUNE], 3 * IMAGES * 5 * LEFT),
        ([ZOO, TUNE, PRUNE], 3 * IMAGES * 5 * WHOLE),
        ([ZOO, {"command": "dhp", "epochs": 2}, TUNE | {"epochs": 3}], 3 * IMAGES * (2 * WHOLE + 3 * LEFT)),
        ([ZOO, {"command": "search", TRIED: 7000}, TUNE], 3 * IMAGES * 5 * LEFT + 7000),
        ([ZOO, {"command": "transform"}, PRUNE, TUNE], 3 * IMAGES * 5 * LEFT),
        ([ZOO, {"command": "pruning-net", "epochs": 9}, {"command": "search"}], 0),
    ],
    ids=["pruned", "finetuned", "before", "dhp", "searched", "rewritten", "learnt once"],
)
def test_what_a_model_took(lineage: list[dict[str, Any]], expected: int) -> None:
    assert spent(tuple(lineage), WHOLE, LEFT, IMAGES) == expected


def test_what_was_learnt_once_is_apart_and_pays_from_so_many_models_on() -> None:
    assert learnt((ZOO, {"command": "search", "method": "pruningnet", LEARNT: 900})) == 900
    assert learnt((ZOO, PRUNE)) is None
    costs = {"plain": (50, None), "searched": (300, None), "pruningnet": (100, 900), "dhp": (140, None)}
    rows = [replace(row("a", arm), training_macs=cost, learnt_macs=once) for arm, (cost, once) in costs.items()]
    summary = summarise(rows)
    assert learnt_lines(summary) == [
        "pruningnet: 900 multiply-adds once for all models; less in all from so many models on: "
        "5 beside searched, 23 beside dhp."
    ]
    assert summary_tables(summary)[0].rows[0]["training_macs"] == 50
