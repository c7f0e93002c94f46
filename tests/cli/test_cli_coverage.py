"""``coverage`` through the command line: resuming, exit codes, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_calling import call, run

SUITE = """
import torch
from torch import nn

def good():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    model.example_inputs = {"input": torch.zeros(1, 3)}
    return model

def bad():
    raise RuntimeError("on purpose")
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite_of_the_shell.py").write_text(SUITE)
    return tmp_path / "suite_of_the_shell.py"


def test_rows_are_made_once_and_failed_ones_again(suite: Path) -> None:
    arguments = ("coverage", "--suite", suite, "-s", "1.5", "-o", "out/c.json", "--markdown", "out/c.md")
    first = call(*arguments)
    assert first.code == 3
    assert "1 of 2 models failed" in first.err
    before = json.loads(Path("out/c.json").read_text())
    assert [(row["name"], row["status"]) for row in before["rows"]] == [("good", "ok"), ("bad", "failed")]
    assert before["summary"] == "2 models: 1 ok, 0 partly, 1 failed"
    assert "on purpose" in Path("out/c.md").read_text()
    assert before["versions"].keys() >= {"torch", "torchvision", "metaprune"}

    again = run(*arguments, "--only", "good", "--json").json
    assert [row for row in again["rows"] if row["name"] == "good"] == before["rows"][:1]
    suite.write_text(SUITE.replace('raise RuntimeError("on purpose")', "return good()"))
    changed = run(*arguments, "--json").json
    assert [row["status"] for row in changed["rows"]] == ["ok", "ok"]
    assert changed["rows"][0]["code"] != before["rows"][0]["code"]  # another source: its rows say nothing any more
    assert [path.name for path in sorted(Path("out").iterdir())] == ["c.json", "c.md"]

    other = run("coverage", "--suite", suite, "-s", "2", "--only", "g*", "-o", "out/c.json", "--json").json
    assert [row["name"] for row in other["rows"]] == ["good"]
    assert other["rows"][0]["speedups"][0]["requested"] == 2


def test_only_keeps_the_other_rows(suite: Path) -> None:
    suite.write_text(SUITE.replace('raise RuntimeError("on purpose")', "return good()"))
    arguments = ("coverage", "--suite", suite, "-s", "1.5", "-o", "c.json", "-q")
    run(*arguments, "--only", "bad")
    seconds = json.loads(Path("c.json").read_text())["rows"][0]["seconds"]
    rows = run(*arguments, "--only", "good", "--json").json["rows"]
    assert {row["name"]: row["status"] for row in rows} == {"bad": "ok", "good": "ok"}
    assert seconds in [row["seconds"] for row in rows]


def test_nothing_else_is_overwritten(suite: Path) -> None:
    Path("notes.json").write_text('{"mine": 1}')
    ran = call("coverage", "--suite", suite, "-o", "notes.json")
    assert ran.code == 2
    assert "not a coverage report" in ran.err
    assert json.loads(Path("notes.json").read_text()) == {"mine": 1}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--suite", "nowhere.yaml"), "cannot be read"),
        (("--only", "no-such-model"), "no model of this name"),
        (("-s", "1"), "speedup"),
        (("--jobs", "0"), "jobs"),
    ],
)
def test_bad_usage(suite: Path, arguments: tuple[str, ...], text: str) -> None:
    ran = call("coverage", *arguments)
    assert ran.code == 2
    assert text in ran.err
