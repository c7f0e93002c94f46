"""Suites, trials and reports of ``coverage``, on models of a few neurons."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metaprune_cli.config import CoverageSettings
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.models import list_architectures
from metaprune_cli.workflows.coverage import process, proofs, report, trial
from metaprune_cli.workflows.coverage.entry import Entry
from metaprune_cli.workflows.coverage.process import try_model
from metaprune_cli.workflows.coverage.random_weights import randomise_
from metaprune_cli.workflows.coverage.suite import read_suite

FACTORIES = """
import os, time
import torch
from torch import nn

def plain(width=8):
    model = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 4))
    model.example_inputs = torch.zeros(1, 3)
    return model

def needs(argument):
    return None

def _hidden():
    return None

def crashes():
    os._exit(9)

def sleeps():
    time.sleep(60)

def silent():
    return nn.Linear(2, 2)

def locked():
    model = nn.Linear(3, 4)
    model.example_inputs = torch.zeros(1, 3)
    return model
"""
SETTINGS = CoverageSettings(speedup=(1.5,), timeout_s=100, memory_gb=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "suite_of_tests.py").write_text(FACTORIES)
    return tmp_path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trials without a process of their own, which takes seconds: for what a row says, not for what ends a process."""

    def run(trial_folder: Path, *_: object) -> None:
        trial.main([str(trial_folder)])

    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(process.__file__).parents[3])]))
    monkeypatch.delitem(sys.modules, "suite_of_tests", raising=False)
    monkeypatch.setattr(process, "_run", run)
    return folder


def tried(folder: Path, name: str, settings: CoverageSettings = SETTINGS, **further: Any) -> dict[str, Any]:
    return try_model(Entry(name, f"suite_of_tests:{name}", **further), settings, folder)


def test_torchvision_is_all_of_it() -> None:
    entries = read_suite("torchvision")
    known = [name for name in list_architectures() if name.startswith("torchvision:")]
    assert sorted(entry.arch for entry in entries) == known
    assert len(entries) >= 121
    assert {entry.task for entry in entries} >= {"classification", "detection", "video", "optical flow", "quantizable"}


def test_a_python_file_is_a_list_of_its_factories(folder: Path) -> None:
    names = [entry.name for entry in read_suite(str(folder / "suite_of_tests.py"))]
    assert names == ["plain", "crashes", "sleeps", "silent", "locked"]


def test_a_yaml_file_gives_arguments(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text("- a.b:c\n- {arch: a.b:d, name: wide, args: {width: 9}, input_shape: [3, 8]}\n")
    assert read_suite(str(file)) == (Entry("a.b:c", "a.b:c"), Entry("wide", "a.b:d", {"width": 9}, (3, 8)))
    assert [entry.name for entry in read_suite(str(file), ["w*"])] == ["wide"]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.yaml", None, "cannot be read"),
        ("a.yaml", "{a: b", "not valid YAML"),
        ("a.yaml", "- {name: x}", "cannot be understood"),
        ("a.yaml", "- {arch: x, shape: 3}", "cannot be understood"),
        ("a.yaml", "[a:b, a:b]", "same name"),
        ("a.py", "def (", "not Python"),
        ("a.py", "x = 1", "suite is empty"),
    ],
)
def test_suites_that_are_none(tmp_path: Path, name: str, content: str | None, text: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=text):
        read_suite(str(tmp_path / name))


def test_what_holds_is_ok(folder: Path) -> None:
    row = tried(folder, "plain", args={"width": 16})
    assert row["status"] == "ok", row
    assert row["step"] == "done"
    (done,) = row["speedups"]
    assert done["achieved"] >= 1.5
    assert done["error"] < 1e-10
    assert done["training_error"] < 1e-10
    assert row["params"] == 16 * 3 + 16 + 4 * 16 + 4
    assert 0.8 < row["prunable_share"] < 1


def test_what_cannot_be_reached_is_said(here: Path) -> None:
    row = tried(here, "plain", CoverageSettings(speedup=(50.0,)))
    assert row["status"] == "partly"
    assert row["speedups"][0]["achieved"] == pytest.approx(8)
    assert "50x is out of reach: 8x is the most" in report.because(row)


def test_a_model_of_which_nothing_can_go_says_so(here: Path) -> None:
    row = tried(here, "locked")
    assert row["status"] == "partly"
    assert row["speedups"] == [{"requested": 1.5, "achieved": None}]
    assert "it is an output of the model" in report.because(row)


@pytest.mark.parametrize(
    ("name", "text"), [("silent", "The shape of the model's input is not known"), ("nowhere", "could not be imported")]
)
def test_what_cannot_be_built_costs_one_row(here: Path, name: str, text: str) -> None:
    row = tried(here, name)
    assert (row["status"], row["step"]) == ("failed", "build")
    assert text in report.because(row)


@pytest.mark.parametrize(
    ("name", "settings", "step", "text"),
    [
        ("crashes", SETTINGS, "start", "ended with 9"),
        ("sleeps", CoverageSettings(timeout_s=0.5), "start", "more than 0.5 s"),
        ("plain", CoverageSettings(memory_gb=0.001), "start", "more than 0.001 GB"),
    ],
)
def test_whatever_ends_a_trial_costs_one_row(
    folder: Path, name: str, settings: CoverageSettings, step: str, text: str
) -> None:
    row = tried(folder, name, settings)
    assert (row["status"], row["step"]) == ("failed", step)
    assert text in report.because(row)


def test_no_zeros_and_no_ones_are_left() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.LayerNorm(3))
    nn.init.zeros_(model[0].weight)
    randomise_(model, 0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            assert not bool(((tensor == 0) | (tensor == 1)).any()), name
    assert bool((model[1].running_var > 0).all())


@pytest.mark.parametrize("entry", ["weight", "count", "hidden"])
def test_one_bit_is_a_difference(entry: str) -> None:
    def make() -> nn.Module:
        model = nn.Linear(2, 2)
        model.register_buffer("count", torch.zeros((), dtype=torch.int64))
        model.register_buffer("hidden", torch.zeros(2), persistent=False)
        nn.init.constant_(model.weight, float("nan"))  # equal bits, though not equal numbers
        nn.init.zeros_(model.bias)
        return model

    one, two = make(), make()
    proofs.same_state(one, two)
    with torch.no_grad():
        getattr(two, entry).view(-1)[-1] = -0.0 if entry == "hidden" else 1
    with pytest.raises(NumericsError, match=entry):
        proofs.same_state(one, two)


_INPUT = "it is an input of the model"


def test_the_report_is_by_task_and_says_why() -> None:
    row = {"params": 10, "macs": 10, "families": 2, "locked": 1, "seconds": 1.0, "step": "done", "reasons": []}
    done = {"requested": 2.0, "achieved": 2.1, "route": "class", "error": 1e-9, "training_error": None}
    rows = [
        {**row, "name": "a", "task": "video", "status": "ok", "speedups": [done, {**done, "error": 1e-7}]},
        {**row, "name": "b", "task": "flow", "status": "partly", "speedups": [], "reasons": ["3x is out of reach"]},
        {**row, "name": "c", "task": "flow", "status": "failed", "speedups": [], "step": "encode", "error": "x | y"},
        {**row, "name": "d", "task": "flow", "status": "ok", "speedups": [done], "locked_reasons": ["topk", _INPUT]},
    ]
    document = {"rows": rows, "versions": {"torch": "2"}, "command": "metaprune coverage"}
    text = report.markdown(json.loads(json.dumps(document)))
    assert "4 models: 2 ok, 1 partly, 1 failed. Made by `metaprune coverage` with torch 2." in text
    assert text.index("## Video") < text.index("## Flow") < text.index("## Reasons")
    assert "2.10x, 2.10x | class | 1.0e-07 |" in text
    assert "| b | partly | 3x is out of reach |" in text
    assert "| c | failed | encode: x \\| y |" in text
    assert "| topk | d |" in text
    assert _INPUT not in text
