"""kill -9 at any moment, run again: the same bytes as a run that nobody touched; and what ends a run in other ways."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from cli_calling import TINY, run
from cli_processes import Moment, ended, files, started

MOMENTS = (
    Moment("file is being written", 3),
    Moment("checkpoint was saved"),
    Moment("output is there, and its checkpoint still"),
)
"""One after the other, each in a run that goes on from the one before."""
MODEL = "zoo/heldout/resnet8-3.safetensors"
TEACHER = ("--teacher", "zoo/train/resnet8-0.safetensors", "--ema", "0.9", "--patience", "2")
COMMANDS = {
    "zoo": ("zoo", "-o", "{}"),
    "finetune": ("finetune", MODEL, "-o", "{}/tuned.safetensors"),
    "finetune with all": ("finetune", MODEL, "-o", "{}/tuned.safetensors", *TEACHER),
    "meta-train": ("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", "{}/metanet.safetensors"),
    "iterate": ("iterate", MODEL, "-s", "2", "--rounds", "2", "--epochs", "2", "-o", "{}/small.safetensors"),
}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_three_times_a_run_ends_with_the_same_bytes(work: Path, tmp_path: Path, command: str) -> None:
    whole, broken = ([part.format(tmp_path / name) for part in COMMANDS[command]] for name in ("whole", "broken"))
    run(*whole, "-q")
    for moment in MOMENTS:
        process = started(work, *broken, "-q", "--resume", until=moment)
        assert ended(process) == -signal.SIGKILL, f"it was over before: {moment.what}"
        assert files(tmp_path / "broken") != files(tmp_path / "whole"), moment.what
    run(*broken, "-q", "--resume")
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_keeps_its_state(pipeline: Path, tmp_path: Path, sent: signal.Signals) -> None:
    settings = TINY | {"finetune": {"epochs": 100_000, "lr": 0.01, "schedule": "constant"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    process = started(tmp_path, "finetune", pipeline / MODEL, "-o", "out/tuned.safetensors", "-q")
    checkpoint = tmp_path / "out" / "tuned.checkpoint.safetensors"
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, sent)
    assert ended(process) == 130
    assert list(files(tmp_path / "out")) == [checkpoint.name]
    assert run("inspect", checkpoint, "--json").json["document"]["state"]["epoch"] > 0


def test_two_runs_for_one_output_both_end_and_one_of_them_stays(work: Path, tmp_path: Path) -> None:
    both = [("finetune", MODEL, "-q", "--resume", "--lr", lr, "-o") for lr in ("0.01", "0.02")]
    processes = [started(work, *command, tmp_path / "same" / "tuned.safetensors") for command in both]
    assert [ended(process) for process in processes] == [0, 0]
    for number, command in enumerate(both):
        run(*command, tmp_path / str(number) / "tuned.safetensors")
    assert list(files(tmp_path / "same")) == ["tuned.safetensors"]
    assert files(tmp_path / "same") in [files(tmp_path / "0"), files(tmp_path / "1")]


def test_two_exports_to_one_place_both_end(work: Path, tmp_path: Path) -> None:
    command = ("export", MODEL, "-f", "safetensors", "-f", "torch-export", "-q", "-o")
    run(*command, tmp_path / "alone")
    processes = [started(work, *command, tmp_path / "same") for _ in range(2)]
    assert [ended(process) for process in processes] == [0, 0]
    assert files(tmp_path / "same") == files(tmp_path / "alone")
