"""``search``: what it writes, the same bytes however it runs, what it refuses."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_calling import call, run
from ranks_calling import on_ranks

from metaprune_cli.artifacts import read_document
from metaprune_cli.reports.png import is_png
from metaprune_cli.workflows import judging, workers
from metaprune_cli.workflows.searching import BASELINES

SMALL = ("--population", 6, "--iterations", 3, "--leaders", 2, "--repair-images", 40, "--max-ratio", 0.9, "-q")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def text_of(err: str) -> str:
    return " ".join(err.replace("│", " ").split())


def call_at(folder: str, arguments: tuple[str, ...]) -> Any:
    os.chdir(folder)
    return call(*arguments)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, pipeline: Path) -> Path:
    """The folder that a search for two speed-ups writes."""
    folder, before = tmp_path_factory.mktemp("searched"), Path.cwd()
    os.chdir(pipeline)
    try:
        to = ("-o", folder, "--draw", folder.with_suffix(".png"))
        run("search", "zoo/heldout/resnet8-3.safetensors", *SMALL, "-s", 2, "-s", 3, *to)
    finally:
        os.chdir(before)
    return folder


def test_models_a_table_and_a_picture_are_written(searched: Path, model: Path) -> None:
    assert list(files_of(searched)) == [
        "resnet8-3.search.csv",
        "resnet8-3.search.png",
        "resnet8-3.searched-2x.safetensors",
        "resnet8-3.searched-3x.safetensors",
    ]
    assert is_png(searched.with_suffix(".png"))
    document = read_document(searched / "resnet8-3.searched-2x.safetensors")
    step = document["lineage"][-1]
    assert (step["command"], step["requested"], step["weights"], step["evaluated"]) == ("search", 2, "model", 18)
    small = searched / "resnet8-3.searched-2x.safetensors"
    shown = run("eval", small, "--base", model, "--json").json["models"]
    assert {row["arm"] for row in shown if row["step"] == "pruned"} == {"searched"}


def test_nothing_in_the_table_is_outside_the_budget_and_the_chosen_one_is_the_file(searched: Path) -> None:
    with (searched / "resnet8-3.search.csv").open() as file:
        rows = list(csv.DictReader(file))
    for target, speedup in (("2x", 2.0), ("3x", 3.0)):
        own = [row for row in rows if row["target"] == target]
        plan = read_document(searched / f"resnet8-3.searched-{target}.safetensors")["pruning"]
        budget = plan["macs"]["before"] / speedup
        least = min(0.97 * budget, *(float(row["cost"]) for row in own if row["how"] in BASELINES))
        assert all(least <= float(row["cost"]) <= budget for row in own)
        (chosen,) = (row for row in own if row["chosen"])
        assert float(chosen["cost"]) == plan["macs"]["after"]
        assert all(
            int(chosen[family["name"]]) == family["after"] for family in plan["families"] if family["name"] in chosen
        )
        best = min(float(row["verified"]) for row in own if row["how"] in BASELINES)
        assert float(chosen["verified"]) <= best


def test_two_processes_write_the_same_bytes(searched: Path, model: Path, tmp_path: Path) -> None:
    run("search", model, *SMALL, "-s", 2, "-s", 3, "-o", tmp_path, "--jobs", 2)
    assert files_of(tmp_path) == files_of(searched)


def test_two_ranks_write_the_same_bytes(searched: Path, model: Path, tmp_path: Path) -> None:
    arguments = tuple(map(str, ("search", model, *SMALL, "-s", 2, "-s", 3, "-o", tmp_path)))
    first, second = on_ranks(call_at, str(Path.cwd()), arguments)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert files_of(tmp_path) == files_of(searched)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    searched: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Path] = []
    whole = judging.Judge.quickly

    def interrupted(self: judging.Judge, kept: Any) -> Any:
        judged.append(tmp_path)
        if len(judged) == 15:
            raise KeyboardInterrupt
        return whole(self, kept)

    arguments = ("search", model, *SMALL, "-s", 2, "-s", 3, "-o", tmp_path)
    monkeypatch.setattr(judging.Judge, "quickly", interrupted)
    assert call(*arguments).code == 130
    assert [name for name in files_of(tmp_path) if "checkpoint" not in name] == []
    run(*arguments, "--resume")
    assert len(judged) < 15 + 36 - 6  # what two iterations have judged is known
    assert files_of(tmp_path) == files_of(searched)


def test_one_search_for_all_targets(model: Path, tmp_path: Path) -> None:
    found = run("search", model, *SMALL, "--front", "-s", 2, "-s", 3, "-o", tmp_path, "--json").json["models"]
    first, second = (row["evaluated"] for row in found)
    assert first == second
    assert 18 <= first <= 20  # four starts for each target are more than the population
    assert [row["achieved"] >= row["requested"] for row in found] == [True, True]


def test_weights_from_scratch_are_to_be_trained(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.safetensors"
    run("search", model, *SMALL, "-s", 2, "--weights", "scratch", "-o", target)
    assert read_document(target)["lineage"][-1]["weights"] == "scratch"
    rows = run("eval", target, "--base", model, "--json").json["models"]
    assert {row["arm"] for row in rows} == {"plain", "searched from-scratch"}


def test_the_rank_check_says_how_much_each_fitness_tells(model: Path, tmp_path: Path) -> None:
    options = ("--rank-check", 4, "--rank-epochs", 1, "-o", tmp_path)
    (found,) = run("search", model, *SMALL, "-s", 2, *options, "--json").json["models"]
    assert sorted(found["taus"]) == ["recalibrated", "repaired", "shared"]
    assert all(-1 <= low <= tau <= high <= 1 for tau, low, high in found["taus"].values())
    with (tmp_path / "resnet8-3.rank-check-2x.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_killed_worker_is_one_message(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_judged", lambda *_: os.kill(os.getpid(), signal.SIGKILL))  # pickled by value
    ran = call("search", model, *SMALL, "-s", 2, "-o", tmp_path, "--jobs", 2)
    assert ran.code == 2
    assert "A worker process was killed from outside" in text_of(ran.err)
    assert not list(tmp_path.glob("*.searched*"))


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["-s", "900"], 3, "900"),
        (["-s", "2", "--ignore", "*"], 3, "0% of each family may go"),
        (["-s", "2", "--ignore", "nowhere*"], 2, "A rule matches nothing in this model"),
        (["--target", "drop=1"], 2, "cannot be searched for with a target of drop"),
        (
            ["--front", "--target", "macs=2x", "--target", "params=3x"],
            2,
            "cannot combine targets of different quantities",
        ),
        (["-s", "2", "--jobs", "-1"], 2, "--jobs"),
        (["-s", "2", "--weights", "borrowed"], 2, "borrowed"),
        (["-s", "2", "--mutate", "1.5"], 2, "mutate"),
    ],
)
def test_what_cannot_be_searched_is_said_and_leaves_nothing(
    options: list[str], code: int, text: str, model: Path, tmp_path: Path
) -> None:
    ran = call("search", model, *SMALL, *options, "-o", tmp_path)
    assert ran.code == code, ran.err
    assert text in text_of(ran.err)
    assert not list(tmp_path.iterdir())


def test_a_table_of_somebody_else_stays(model: Path, tmp_path: Path) -> None:
    (tmp_path / "resnet8-3.search.csv").write_text("mine")
    ran = call("search", model, *SMALL, "-s", 2, "-o", tmp_path)
    assert ran.code == 2
    assert "is not a table of an earlier search" in text_of(ran.err)
    assert (tmp_path / "resnet8-3.search.csv").read_text() == "mine"


def test_a_rank_check_repairs_what_the_search_does_not(model: Path, tmp_path: Path) -> None:
    options = ("search", model, *SMALL, "-s", 2, "--repair", "none", "-o")
    checked, other = tmp_path / "checked.safetensors", tmp_path / "other.safetensors"
    (row,) = run(*options, checked, "--rank-check", 3, "--rank-epochs", 1, "--json").json["models"]
    assert {"repaired", "recalibrated", "shared"} <= set(row["taus"])
    run(*options, other)
    assert checked.read_bytes() == other.read_bytes()  # the check has no part in the result
