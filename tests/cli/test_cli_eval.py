from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_calling import call, run

from metaprune_cli.artifacts import read_document

FAST = ("--latency-runs", 2, "--quiet")


def test_json_is_one_object_with_every_model(work: Path) -> None:
    document = run("eval", "zoo/heldout", "transformed", "--base", "zoo/heldout", "--json", *FAST).json
    assert [row["arm"] for row in document["models"]] == ["plain", "metanet"]
    assert {row["base"] for row in document["models"]} == {"resnet8-3"}
    assert document["written"] == []


def test_table_names_every_model_on_stdout_only(model: Path) -> None:
    ran = run("eval", model, *FAST)
    assert "resnet8-3" in ran.out
    assert ran.err == ""


def test_speedups_given_draw_a_curve_at_them(model: Path, tmp_path: Path) -> None:
    ran = run("eval", model, "--speedup", 1.5, "--speedup", 2, "-o", tmp_path / "report", *FAST)
    assert "resnet8-3 @ 1.5x" in ran.out
    assert (tmp_path / "report" / "curve-recalibrated.csv").read_text().count("\n") == 3


def test_both_arms_are_compared(work: Path, tmp_path: Path) -> None:
    run("prune", "zoo/heldout", "-o", tmp_path / "plain", "--quiet")
    run("prune", "transformed", "-o", tmp_path / "meta", "--quiet")
    ran = run("eval", tmp_path / "plain", tmp_path / "meta", "--base", "zoo/heldout", "--json", *FAST)
    assert set(ran.json["summary"]["pruned"]["metanet_minus_plain"]) == {"1.5x", "2x"}


def test_the_page_has_the_command_and_what_pruning_left(model: Path, tmp_path: Path) -> None:
    small, longer, page = (tmp_path / name for name in ("small.safetensors", "longer.safetensors", "new/page.html"))
    run("prune", model, "-s", "2", "--repair", "bias", "-o", small, "--quiet")
    run("finetune", small, "--epochs", "1", "-o", longer, "--quiet")
    plan = read_document(small)["pruning"]
    assert read_document(longer)["pruning"] == plan  # the units are the same
    for _ in range(2):
        assert run("eval", longer, "--base", model, "--report", page, "--json", *FAST).json["written"] == [str(page)]
    text = page.read_text()
    assert "<code>metaprune" in text
    free = [family for family in plan["families"] if not family["locked"]]
    assert all(f"{f['name']}, plain: {f['after']} of {f['before']} are left" in text for f in free)
    assert "<b>finetune</b> small.safetensors, epochs 1, seed 0</li>" in text
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_the_base_is_the_model_that_a_file_was_made_from_where_it_lies_beside_it(model: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copy(model, tmp_path / "whole.safetensors"))
    run("prune", whole, "-s", "2", "--quiet")
    run("finetune", tmp_path / "whole.pruned-2x.safetensors", "--epochs", "1", "--quiet")
    longer = tmp_path / "whole.pruned-2x.finetuned.safetensors"
    rows = run("eval", longer, "--json", *FAST).json["models"]
    assert [(row["name"], row["base"]) for row in rows] == [("whole", "whole"), (longer.stem, "whole")]
    assert rows[1]["speedup"] > 1.9
    other = model.parent.parent / "train" / "resnet8-0.safetensors"
    shutil.copy(other, whole)  # of the same name, and not what it was made from
    rows = run("eval", longer, "--json", *FAST).json["models"]
    assert [(row["name"], row["speedup"]) for row in rows] == [(longer.stem, 1.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.safetensors",), "missing.safetensors: does not exist"),
        (("zoo/heldout", "--base", "nowhere"), "nowhere: does not exist"),
        (("zoo/heldout", "--speedup", 0.5), "curve"),
        (("zoo/heldout", "--latency-runs", 0), "latency_runs"),
        (("zoo/heldout", "-o", "params.yaml"), "needs a folder"),
        (("zoo/heldout", "--device", "tpu"), "Unknown device"),
        (("zoo/heldout", "--report", "params.yaml"), "is not named as an HTML file"),
        (("zoo/heldout", "--report", "theirs.html"), "exists and is not a report of ours"),
    ],
)
def test_bad_usage_is_one_panel_and_exit_code_2(work: Path, arguments: tuple[object, ...], message: str) -> None:
    (work / "theirs.html").write_text("<p>mine</p>")
    ran = call("eval", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


@pytest.fixture(scope="session")
def arms(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the held-out model, pruned to 1.5x: plain, of the same share by layer, repaired, and transformed."""
    folder = tmp_path_factory.mktemp("arms")
    heldout, transformed = pipeline / "zoo/heldout", pipeline / "transformed"
    settings = ("--params", pipeline / "params.yaml", "--speedup", 1.5, "--quiet")
    run("prune", heldout, "-o", folder / "plain", *settings)
    run("prune", heldout, "-o", folder / "uniform", "--scope", "family", *settings)
    run("prune", heldout, "-o", folder / "repaired", "--repair", "bias", *settings)
    run("prune", transformed, "-o", folder / "metanet", *settings)
    return folder


def test_arms_are_compared_with_the_one_that_is_asked_for(work: Path, arms: Path, tmp_path: Path) -> None:
    before = run("eval", arms, "--base", "zoo/heldout", "--json", *FAST).json["summary"]["pruned"]
    report = ("-o", tmp_path / "report", "--report", tmp_path / "page.html")
    ran = run("eval", arms, "--base", "zoo/heldout", "--against", "uniform", "--latency-runs", 2, *report, "--json")
    summary, differing = ran.json["summary"]["pruned"], "repair bias and none."
    assert {"metanet_minus_plain", "metanet_minus_uniform"} <= set(before)
    assert set(summary) - set(before) == {"plain_minus_uniform"}
    assert set(summary["plain_minus_uniform"]["1.5x"]) == set(summary["metanet_minus_uniform"]["1.5x"])
    (apart,) = ran.json["not_compared"]
    assert (apart["arm"], apart["against"], apart["settings"]) == (
        *("plain repaired", "uniform"),
        {"repair": ["bias", "none"]},
    )
    for text in (
        " ".join(ran.err.split()),
        *((tmp_path / name).read_text() for name in ("report/report.md", "page.html")),
    ):
        assert "plain repaired minus uniform" in text
        assert differing in text.replace("\\", "")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [("unifrom", "did you mean 'uniform'?"), ("metanet repaired", "plain, plain repaired, uniform, metanet")],
)
def test_an_arm_that_is_not_there_is_refused_before_anything_is_measured(
    work: Path, arms: Path, wrong: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaprune_cli.stages.eval._measure", lambda *_: pytest.fail("measured"))
    ran = call("eval", arms, "--base", "zoo/heldout", "--against", "plain", "--against", wrong, *FAST)
    assert (ran.code, ran.out) == (2, "")
    assert text in " ".join(ran.err.replace("│", " ").split())


def test_arms_are_called_as_the_report_calls_them(work: Path, arms: Path) -> None:
    """What is common to all goes without saying; the arms of curves are there too."""
    only = (arms / "repaired", "--base", "zoo/heldout")
    assert "plain" in run("eval", *only, "--against", "plain", "--json", *FAST).json["summary"]["pruned"]
    ran = call("eval", *only, "--against", "plain repaired", *FAST)
    assert (ran.code, "plain repaired" in ran.err) == (2, True)
    drawn = run("eval", "zoo/heldout", "--speedup", 1.5, "--against", "uniform", "--json", *FAST).json["summary"]
    assert "plain_minus_uniform" in drawn["recalibrated"]
    assert "there is none" in call("eval", "zoo/heldout", "--against", "plain", *FAST).err
