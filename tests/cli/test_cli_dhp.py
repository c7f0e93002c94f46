"""``dhp``: one training, a model at every target, and what cannot be trained so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_calling import call, run
from torch import nn

from metaprune_cli.artifacts import read_document
from metaprune_cli.errors import TargetError
from metaprune_cli.models import load_model
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.made import Checkpoint

SHORT = ("-s", "1.3,1.6", "--epochs", "4")


def said(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="module")
def shrunk(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shrunk")
    model = pipeline / "zoo/heldout/resnet8-3.safetensors"
    run("dhp", model, *SHORT, "--dataset", "digits", "--params", pipeline / "params.yaml", "-o", folder)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_training_leaves_a_model_at_every_target(shrunk: Path, work: Path) -> None:
    assert files(shrunk) == ["resnet8-3.dhp-1.3x.safetensors", "resnet8-3.dhp-1.6x.safetensors"]
    documents = [read_document(shrunk / name) for name in files(shrunk)]
    for document, asked in zip(documents, (1.3, 1.6), strict=True):
        step = document["lineage"][-1]
        figures = {"command": "dhp", "input": "resnet8-3.safetensors", "requested": asked, "start": "trained"}
        assert step.items() >= figures.items()
        assert step["achieved"] >= asked
        assert document["pruning"]["check"]["error"] < 1e-6
        metrics = document["metrics"]
        assert metrics["whole_top1"] == metrics["val_top1"]  # removed units were zeros already
    assert [document["metrics"]["epochs"] for document in documents] == [3, 4]
    assert len(documents[1]["history"]) == 4
    for name in files(shrunk):
        load_model(shrunk / name)(torch.zeros(2, 1, 8, 8))


def test_the_files_are_finetuned_and_compared(shrunk: Path, model: Path, work: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned.safetensors"
    run("finetune", shrunk / "resnet8-3.dhp-1.6x.safetensors", "-o", tuned, "-q")
    run("prune", model, "-s", "1.6", "-o", tmp_path / "pruned.safetensors", "-q")
    rows = run("eval", model, tmp_path / "pruned.safetensors", tuned, "--json", "-q").json["models"]
    assert [(row["arm"], row["requested"]) for row in rows] == [("plain", None), ("plain", 1.6), ("dhp", 1.6)]
    assert rows[2]["epochs"] == 4 + 2  # of both trainings


def test_the_same_call_gives_the_same_bytes_and_a_killed_one_goes_on(
    shrunk: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, saved = Checkpoint.save, []

    def save_and_stop(self: Checkpoint, state: TrainState) -> None:
        real(self, state)
        saved.append(state)
        if len(saved) == 3:  # the first target is passed, the second is not
            raise KeyboardInterrupt

    command = ("dhp", model, *SHORT, "-o", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        assert call(*command).code == 130
    first, last = files(shrunk)
    assert files(tmp_path) == [first, "resnet8-3.dhp-1.6x.checkpoint.safetensors"]
    time = (tmp_path / first).stat().st_mtime_ns
    run(*command, "--resume")
    assert files(tmp_path) == [first, last]
    assert (tmp_path / first).stat().st_mtime_ns == time
    for name in (first, last):
        assert (tmp_path / name).read_bytes() == (shrunk / name).read_bytes()
    again = run(*command, "--resume", "--json").json["models"]
    assert [row["requested"] for row in again] == [1.3, 1.6]
    assert (tmp_path / first).stat().st_mtime_ns == time


def test_without_the_model_that_it_passed_an_interrupted_run_begins_anew(
    shrunk: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = ("dhp", model, *SHORT, "-o", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "discard", lambda self: None)
        run(*command)
    for name in files(shrunk):
        (tmp_path / name).unlink()
    run(*command, "--resume")
    assert "a model of the interrupted run is gone; starting from the beginning" in caplog.text
    for name in files(shrunk):
        assert (tmp_path / name).read_bytes() == (shrunk / name).read_bytes()


def test_its_epochs_count_against_those_of_finetuning(shrunk: Path, model: Path, tmp_path: Path) -> None:
    small = shrunk / files(shrunk)[0]
    had = read_document(small)["lineage"][-1]["epochs"]
    for epochs in (had + 1, had + 2):
        run("finetune", small, "--in-all", "--epochs", epochs, "-o", tmp_path / "tuned.safetensors")
        assert read_document(tmp_path / "tuned.safetensors")["lineage"][-1]["epochs"] == epochs - had
    run("prune", model, "-s", 1.3, "-o", tmp_path / "pruned.safetensors")
    run(
        "finetune",
        tmp_path / "pruned.safetensors",
        "--in-all",
        "--epochs",
        had + 2,
        "-o",
        tmp_path / "tuned2.safetensors",
    )
    evaluated = run("eval", tmp_path / "tuned.safetensors", tmp_path / "tuned2.safetensors", "--base", model, "--json")
    assert {row["epochs"] for row in evaluated.json["models"] if row["step"] == "finetuned"} == {had + 2}
    refused = call("finetune", small, "--in-all", "--epochs", had, "-o", tmp_path / "none.safetensors")
    assert refused.code == 2
    assert "No epochs are left for this model" in said(refused.err)


def test_a_new_model_of_an_architecture(work: Path, tmp_path: Path) -> None:
    new = ("--arch", "cifar:resnet8", "--arch-arg", "width=0.25", "--embedding", "2", "--seed", "5")
    rows = run("dhp", *new, "-s", "1.4", "--epochs", "2", "-o", tmp_path / "new", "--json", "-q").json["models"]
    assert [row["input"] for row in rows] == [None]
    document = read_document(tmp_path / "new" / "resnet8-5.dhp-1.4x.safetensors")
    step = document["lineage"][-1]
    assert (step["input"], step["arch"], step["start"]) == (None, "cifar:resnet8", "scratch")


def test_a_model_may_begin_anew_unless_it_was_pruned(shrunk: Path, model: Path, tmp_path: Path) -> None:
    out = ("--start", "scratch", "-s", "1.3", "--epochs", "2", "-o", tmp_path / "new.safetensors", "-q")
    run("dhp", model, *out)
    assert read_document(tmp_path / "new.safetensors")["lineage"][-1]["start"] == "scratch"
    refused = call("dhp", shrunk / files(shrunk)[0], *out)
    assert refused.code == 2
    assert "does not have the widths of its architecture" in said(refused.err)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        pytest.param(("-s", "1000"), 3, "cannot be met", id="out of reach"),
        pytest.param(("-s", "2,x"), 2, "expected a number", id="no number"),
        pytest.param(("-s", "1"), 2, "above 1", id="nothing to do"),
        pytest.param(("--rule", "nowhere: ignore", "-s", "1.3"), 2, "A rule matches nothing", id="rule"),
        pytest.param(("--ignore", "*", "-s", "1.3"), 3, "cannot be met", id="nothing may go"),
        pytest.param(("--epochs", "0"), 2, "at least 1", id="no epochs"),
        pytest.param(
            ("--shrink", "threshold", "-s", "1.5", "--epochs", "1"), 3, "was not reached within 2 steps", id="too short"
        ),
        pytest.param(("--lr", "1e9", "--epochs", "3", "-s", "1.3"), 2, "loss is nan in epoch 1", id="diverges"),
    ],
)
def test_what_cannot_be_is_refused(model: Path, tmp_path: Path, options: Any, code: int, words: str) -> None:
    ran = call("dhp", model, *options, "-o", tmp_path / "out.safetensors", "-q")
    assert words in said(ran.err), ran.err
    assert ran.code == code
    assert files(tmp_path) == []


def test_there_must_be_something_to_begin_with(work: Path) -> None:
    for options in ((), ("--arch", "cifar:resnet8", "--start", "trained")):
        ran = call("dhp", *options, "-q")
        assert ran.code == 2
        assert "There is no model to start from" in said(ran.err)


def test_a_model_without_a_free_family_is_refused(work: Path, tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), tmp_path / "net.pt")
    ran = call("dhp", tmp_path / "net.pt", "--trust-pickle", "--input-shape", "1,8,8", "-q")
    assert ran.code == TargetError.exit_code == 3
    assert "Nothing can be removed: every unit is locked" in said(ran.err)


def test_zeros_are_not_kept_and_it_is_said(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sparse = tmp_path / "sparse.safetensors"
    run("sparsify", model, "--sparsity", "0.5", "-o", sparse)
    run("dhp", sparse, "-s", "1.3", "--epochs", "1", "-o", tmp_path / "out.safetensors")
    assert "its zeros are not kept" in caplog.text
    assert "zeros" not in read_document(tmp_path / "out.safetensors")


def test_several_models_at_a_time_are_the_same_bytes(shrunk: Path, pipeline: Path, work: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline / "zoo/heldout", tmp_path / "in")
    shutil.copy(pipeline / "zoo/train/resnet8-0.safetensors", tmp_path / "in")
    run("dhp", tmp_path / "in", *SHORT, "--jobs", "2", "-o", tmp_path / "out")
    for name in files(shrunk):
        assert (tmp_path / "out" / name).read_bytes() == (shrunk / name).read_bytes()
