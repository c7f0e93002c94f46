"""``iterate``: the rounds' files, what they say, stopping early, going on, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_calling import call, run

from metaprune_cli.artifacts import file_sha256, read_document
from metaprune_cli.stages import iterate

SHORT = ("--epochs", "1", "--last-epochs", "1", "-q")


def test_rounds_lead_to_the_target_and_eval_knows_them(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    found = run("iterate", model, "-s", "2", "--rounds", "2", *SHORT, "-o", out, "--json").json["models"][0]
    assert found["achieved"] >= found["requested"] == 2
    assert [done["kept"] for done in found["rounds"]] == [True, True]
    assert found["rounds"][0]["achieved"] < found["rounds"][1]["achieved"]
    document = read_document(out)
    commands = [step["command"] for step in document["lineage"][1:]]
    assert commands == ["prune", "finetune", "prune", "finetune", "finetune"]
    row = run("eval", model, out, "--json", "-q").json["models"][1]
    assert (row["arm"], row["requested"], row["speedup"]) == ("2-rounds", 2.0, pytest.approx(found["achieved"]))


def test_a_second_run_with_resume_trains_no_round_again(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    run("iterate", model, "-s", "1.5", "--rounds", "2", *SHORT, "-o", out)
    trained = tmp_path / "small.rounds" / "1.trained.safetensors"
    before, made = file_sha256(out), trained.stat().st_mtime_ns
    out.unlink()
    run("iterate", model, "-s", "1.5", "--rounds", "2", *SHORT, "-o", out, "--resume")
    assert trained.stat().st_mtime_ns == made
    assert file_sha256(out) == before


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Rounds are trained, and are then said to have these accuracies; the whole model is said to have 95 %."""
    said, real = iter([94.0, 90.0]), iterate._train

    def train(*arguments: Any, **keywords: Any) -> Any:
        trained = real(*arguments, **keywords)
        return replace(trained, headline=next(said)) if keywords["short"] else trained

    monkeypatch.setattr(iterate, "_train", train)
    monkeypatch.setattr(iterate, "_headline", lambda *_: 95.0)
    return said


def test_rounds_end_before_too_much_is_lost(accuracies: Iterator[float], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "some.safetensors"
    arguments = ("iterate", model, "-s", "4", "--rounds", "3", *SHORT, "--max-drop", "1.5", "-o", out)
    found = run(*arguments, "--json").json["models"][0]
    assert [(done["drop"], done["kept"]) for done in found["rounds"]] == [(1.0, True), (5.0, False)]
    assert found["achieved"] == found["rounds"][0]["achieved"] < found["rounds"][1]["achieved"]
    document = read_document(out)
    assert document["metrics"]["val_top1"] == found["val_top1"]
    assert document["lineage"][-1]["input"] == "1.trained.safetensors"


def test_a_first_round_that_costs_too_much_is_a_target_out_of_reach(
    accuracies: Iterator[float], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "none.safetensors"
    ran = call("iterate", model, "-s", "4", "--rounds", "2", *SHORT, "--max-drop", "0.5", "-o", out)
    assert ran.code == 3
    assert "The first round costs 1.00 points" in ran.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--target", "drop=1"), "--max-drop"),
        (("--last-epochs", "0"), "no training after the last round"),
        (("--rounds", "0"), "rounds"),
        (("--schedule", "square"), "geometric"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: tuple[str, ...], text: str, model: Path, tmp_path: Path) -> None:
    ran = call("iterate", model, *arguments, "-o", tmp_path / "out.safetensors")
    assert ran.code == 2
    assert text in " ".join(ran.err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
