"""A checkpoint that cannot be used says what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metaprune_cli.artifacts import write_artifact
from metaprune_cli.errors import MetapruneError
from metaprune_cli.stages.made import Checkpoint


def test_there_is_none(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "x.checkpoint.safetensors", "f").load() is None


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_damaged_or_foreign_checkpoint_asks_to_be_deleted(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.checkpoint.safetensors"
    write_artifact(path, "model" if damage == "foreign" else "checkpoint", {"a": torch.zeros(3)}, {"fingerprint": "f"})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(MetapruneError, match="delete it: the run then starts from the beginning"):
        Checkpoint(path, "f").load()
