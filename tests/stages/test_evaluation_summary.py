from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from evaluated import row, three_arms

from metaprune_cli.console.sheet import csv_text
from metaprune_cli.reports.picture import draw, limits
from metaprune_cli.reports.report import markdown, models_table, summary_tables
from metaprune_cli.reports.rows import Row, Spread
from metaprune_cli.reports.summary import Summary, curve, headline, metrics, summarise
from metaprune_cli.workflows.arms import Arm, arm_of, explained, pipeline_arms

THREE = ("plain", "uniform", "metanet")
SCORED = {"command": "transform", "scored": True}


@pytest.fixture
def rows() -> list[Row]:
    return three_arms()


@pytest.fixture
def summary(rows: list[Row]) -> Summary:
    return summarise(rows)


def test_spread_of_one_value_has_no_deviation() -> None:
    assert Spread.of([3.0]) == Spread(3.0, 0.0, 3.0, 3.0, 1)
    assert Spread.of([3.0]).standard_error is None
    assert Spread.of([1.0, 3.0]).std == pytest.approx(2**0.5)
    assert Spread.of([1.0, 3.0]).standard_error == pytest.approx(1.0)


def test_every_row_is_in_exactly_one_group(rows: list[Row], summary: Summary) -> None:
    grouped = [member for group in summary.groups for member in group.rows]
    assert sorted(grouped, key=repr) == sorted(rows, key=repr)


def test_the_order_of_the_rows_does_not_matter(rows: list[Row]) -> None:
    shuffled = random.Random(1).sample(rows, len(rows))
    ours, theirs = summarise(rows), summarise(shuffled)
    for ordered, mixed in zip(ours.differences, theirs.differences, strict=True):
        assert (ordered.step, ordered.requested, ordered.wins) == (mixed.step, mixed.requested, mixed.wins)
        assert ordered.headline.mean == pytest.approx(mixed.headline.mean)


def test_differences_are_paired_by_origin() -> None:
    summary = summarise(
        [
            row("easy", "plain", top1=95.0),
            row("hard", "plain", top1=60.0),
            row("hard", "metanet", top1=61.0),
            row("easy", "metanet", top1=96.0),
            row("alone", "metanet", top1=1.0),
        ]
    )
    (difference,) = summary.differences
    assert difference.headline == Spread(1.0, 0.0, 1.0, 1.0, 2)  # origins spread by 35 points, differences by none
    assert (difference.wins, difference.ties) == (2, 0)


def test_several_models_of_one_origin_are_one_pair() -> None:
    summary = summarise([row("a", top1=90.0), row("a", top1=92.0), row("a", "metanet", top1=91.0)])
    (difference,) = summary.differences
    assert (difference.headline.mean, difference.headline.count, difference.ties) == (0.0, 1, 1)


def test_one_arm_alone_has_no_difference() -> None:
    summary = summarise([row("a"), row("b")])
    assert summary.differences == ()
    assert len(summary_tables(summary)) == 1


def test_each_baseline_is_compared_where_it_has_models() -> None:
    summary = summarise([row("a"), row("a", "metanet"), row("a", "uniform", requested=3.0)])
    assert [difference.against for difference in summary.differences] == ["plain"]


def test_steps_and_speedups_are_not_mixed(summary: Summary) -> None:
    assert summary.steps == ["finetuned", "recalibrated"]
    assert summary.speedups("finetuned") == [2.0, 4.0, 8.0]
    assert {len(group.rows) for group in summary.groups} == {3}
    assert [difference.against for difference in summary.differences_at("finetuned")] == ["plain", "uniform"] * 3
    assert {difference.headline.count for difference in summary.differences} == {3}


def test_metrics_are_nested_numbers(summary: Summary) -> None:
    document = metrics(summary)
    assert set(document) == {"unpruned", "recalibrated", "finetuned"}
    arms = ("plain", "uniform", "metanet", "metanet_minus_plain", "metanet_minus_uniform")
    assert list(document["finetuned"]) == list(arms)
    paired = document["finetuned"]["metanet_minus_uniform"]["4x"]
    assert paired["top1_se"] == pytest.approx(paired["top1_std"] / 3**0.5)
    assert set(document["finetuned"]["metanet"]) == {"2x", "4x", "8x"}
    assert document["unpruned"]["plain"]["models"] == 3
    json.dumps(document, allow_nan=False)


def test_the_headline_is_top1_after_the_last_step(summary: Summary) -> None:
    found = headline(summary)
    assert list(found) == ["unpruned", "plain", "uniform", "metanet", "metanet_minus_plain", "metanet_minus_uniform"]
    assert found["metanet"]["4x"] == metrics(summary)["finetuned"]["metanet"]["4x"]["top1"]


def test_curve_has_one_record_per_speedup(summary: Summary) -> None:
    records = curve(summary, "recalibrated")
    assert [record["speedup"] for record in records] == [2.0, 4.0, 8.0]
    assert all(list(record) == ["speedup", *pipeline_arms()] for record in records)
    assert all(record[arm] is not None for record in records for arm in THREE)
    assert curve(summary, "pruned") == []


def test_markdown_shows_the_arms_and_every_model(rows: list[Row], summary: Summary) -> None:
    text = markdown(rows, summary, {"Images": "digits, 540 of them"}, picture="curve.png")
    assert "- Images: digits, 540 of them" in text
    assert "Before pruning (models: 3): top-1 98." in text
    assert all(text.count(f"- **{arm}**: ") == 1 for arm in THREE)
    assert text.count("Gain from the metanetwork") == len(summary.steps)
    assert "![Accuracy against speed-up](curve.png)" in text
    assert all(member.name in text for member in rows)


def test_tables_have_a_row_per_speedup_and_arm(rows: list[Row], summary: Summary) -> None:
    assert [len(table.rows) for table in summary_tables(summary)] == [9, 6, 9, 6]
    assert len(models_table(rows).rows) == len(rows)


def test_csv_leaves_a_cell_empty_where_there_is_no_value() -> None:
    assert csv_text([{"a": 1, "b": None}, {"a": 2, "b": "x,y"}], "ab") == 'a,b\n1,\n2,"x,y"\n'


def test_the_picture_is_drawn_and_reproducible(rows: list[Row], summary: Summary, tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    draw(rows, summary, first)
    draw(rows, summary, second)
    assert first.stat().st_size > 5_000
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("plain", "in_view"), [pytest.param(90.0, True, id="close"), pytest.param(30.0, False, id="collapsed")]
)
def test_a_collapsed_arm_does_not_hide_what_the_others_differ_in(plain: float, in_view: bool) -> None:
    means: dict[Arm, float] = {"plain": plain, "uniform": 94.0, "metanet": 95.0}
    summary = summarise([row("a", arm, top1=mean) for arm, mean in means.items()])
    base = summarise([row("a", step="unpruned", requested=None, top1=97.0)]).groups[0]
    lowest, highest = limits(summary.groups, base)
    assert (lowest < plain) is in_view
    assert lowest < 94.0 < 97.0 < highest
    assert in_view or highest - lowest < 5


def test_models_without_a_curve_are_points(tmp_path: Path) -> None:
    rows = [row("a", step="unpruned", requested=None), row("b", step="unpruned", requested=None)]
    draw(rows, summarise(rows), tmp_path / "points.png")
    assert (tmp_path / "points.png").stat().st_size > 5_000


def test_short_and_full_finetuning_are_steps_of_their_own(tmp_path: Path) -> None:
    lengths = (2, 10)
    rows = [row("a", arm, epochs=epochs, top1=80 + epochs) for arm in ("plain", "metanet") for epochs in lengths]
    summary = summarise([*rows, row("a", step="unpruned", requested=None, top1=97.0), row("a", step="recalibrated")])
    assert summary.steps == ["finetuned-10", "finetuned-2", "recalibrated"]
    assert headline(summary)["plain"] == {"2x": 90.0}
    assert summary_tables(summary)[0].title.endswith("pruned and finetuned, 10 epochs in all")
    draw(rows, summary, tmp_path / "curve.png")


def test_arms_are_compared_with_every_baseline() -> None:
    arms = ("taylor", "sparse", "plain", "metanet group-l2", "metanet")
    summary = summarise([row("a", arm, top1=90 + place) for place, arm in enumerate(arms)])
    assert summary.arms == ["plain", "sparse", "taylor", "metanet", "metanet group-l2"]
    assert [(d.arm, d.against, d.headline.mean) for d in summary.differences] == [
        *(("metanet", baseline, gain) for baseline, gain in (("plain", 2), ("sparse", 3), ("taylor", 4))),
        *(("metanet group-l2", baseline, gain) for baseline, gain in (("plain", 1), ("sparse", 2), ("taylor", 3))),
    ]
    columns = list(curve(summary, "finetuned")[0])
    assert [column for column in columns if column in {"speedup", *arms, *THREE}] == [
        *("speedup", "plain", "uniform", "sparse", "taylor"),
        *("metanet", "metanet group-l2"),
    ]


@pytest.mark.parametrize(
    ("before", "ranking", "arm"),
    [
        pytest.param([], {}, "plain", id="plain"),
        pytest.param([], {"scope": "family"}, "uniform", id="uniform"),
        pytest.param([], {"criterion": "taylor", "scope": "family"}, "taylor uniform", id="another criterion"),
        pytest.param([{"command": "finetune", "epochs": 3}], {}, "plain", id="trained on"),
        pytest.param([{"command": "finetune", "epochs": 3, "sparsity": 5e-4}], {}, "sparse", id="sparse learning"),
        pytest.param([], {"after": [{"teacher": "a", "ema": 0.9, "epochs": 3}]}, "taught ema", id="a teacher"),
        pytest.param([{"command": "transform"}], {"scope": "family"}, "metanet", id="metanet"),
        pytest.param([SCORED], {"criterion": "metanet"}, "metanet", id="score head"),
        pytest.param([{**SCORED, "observed": True}], {"criterion": "metanet"}, "metanet images", id="images shown"),
        pytest.param([SCORED], {"criterion": "group-l2"}, "metanet group-l2", id="score head not asked"),
        pytest.param(
            [{"command": "transform"}, {"command": "finetune", "epochs": 3}], {}, "metanet finetuned", id="as the paper"
        ),
        pytest.param(
            [{"command": "transform"}, {"command": "finetune", "epochs": 0}], {}, "metanet", id="recalibrated only"
        ),
    ],
)
def test_the_arm_is_what_was_done_before_and_how_units_were_chosen(
    before: list[dict[str, object]], ranking: dict[str, Any], arm: Arm
) -> None:
    assert arm_of(before, **ranking) == arm
    assert explained(arm)
