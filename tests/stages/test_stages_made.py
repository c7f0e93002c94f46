"""How an output was made: what differs is named, and a checkpoint that cannot be used says what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metaprune_cli.artifacts import read_document, write_artifact
from metaprune_cli.config import DataSettings, OptimSettings
from metaprune_cli.errors import MetapruneError
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.made import Checkpoint, Made

STATE = TrainState(1, {"weight": torch.ones(2)}, {}, ({"epoch": 1},))


def made(lr: float = 0.1, data: str = "1" * 64, **further: object) -> Made:
    return Made.by("finetune", seed=0, digests={"data": data}, finetune=OptimSettings(lr=lr), **further)


def test_where_things_are_is_no_part_of_it() -> None:
    here, there = (Made.by("zoo", data=DataSettings(data_root=root, workers=n)) for root, n in (("/a", 0), ("/b", 8)))
    assert here == there


def test_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "x.checkpoint.safetensors", made()).load() is None


def test_a_checkpoint_of_the_same_run_is_used(tmp_path: Path) -> None:
    made().checkpoint(tmp_path / "x.safetensors").save(STATE)
    state = made().checkpoint(tmp_path / "x.safetensors").load()
    assert state is not None
    assert torch.equal(state.model["weight"], STATE.model["weight"])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (made(lr=0.2), "(finetune.lr was 0.2, is 0.1)"),
        (made(data="2" * 64), "(inputs.data was 22222222222222222222222…, is 11111111111111111111111…)"),
        (made(more={"a": "\x1b[2J"}), '(more.a was "\\u001b[2J", is not there)'),
        (
            made(lr=0.2, data="2" * 64, a=1, b=[2], c=3),
            "; a was 1, is not there; b was [2], is not there; c was 3, is not there; and 1 more)",
        ),
    ],
)
def test_what_differs_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, other: Made, said: str) -> None:
    other.checkpoint(tmp_path / "x.safetensors").save(STATE)
    assert made().checkpoint(tmp_path / "x.safetensors").load() is None
    assert "is of a run with other settings or inputs" in caplog.text
    assert caplog.messages[0].endswith(f"{said}: starting from the beginning")


def test_a_checkpoint_of_an_earlier_version_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.checkpoint.safetensors"
    write_artifact(path, "checkpoint", {}, {"fingerprint": "f", "state": {"epoch": 0, "history": [], "best": None}})
    assert Checkpoint(path, made()).load() is None
    assert "starting from the beginning" in caplog.text


def test_an_output_made_otherwise_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, old = tmp_path / "x.safetensors", made(lr=0.2)
    write_artifact(path, "model", {}, {"made_by": old.document(), "metrics": {"val": 1.0}}, old.inputs)
    assert old.metrics_if_done(path) == {"val": 1.0}
    assert caplog.messages == []
    assert made().metrics_if_done(path) is None
    assert caplog.messages[0].endswith("(finetune.lr was 0.2, is 0.1): making it again")
    write_artifact(path, "model", {}, {"metrics": {}})
    assert made().metrics_if_done(path) is None
    assert read_document(path)["metrics"] == {}


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_damaged_or_foreign_checkpoint_asks_to_be_deleted(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.checkpoint.safetensors"
    write_artifact(path, "model" if damage == "foreign" else "checkpoint", {"a": torch.zeros(3)}, {"fingerprint": "f"})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(MetapruneError, match="delete it: the run then starts from the beginning"):
        Checkpoint(path, made()).load()


def test_a_checkpoint_that_goes_as_it_is_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = made().checkpoint(tmp_path / "x.safetensors")
    present = iter([True, False])
    monkeypatch.setattr(Path, "exists", lambda _: next(present))
    assert checkpoint.load() is None
