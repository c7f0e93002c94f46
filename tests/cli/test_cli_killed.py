"""kill -9 at any moment, run again: the same bytes as a run that nobody touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cli_calling import TINY, run

ROOT = Path(__file__).parents[2]
EPOCHS = 40
TRAIN = (sys.executable, "-m", "metaprune_cli", "meta-train", "graphs/train", "--validation", "graphs/validation")


def start(folder: Path, output: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TRAIN, "-o", output, "--resume"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def kill_after_writes(process: subprocess.Popen[str], checkpoint: Path, writes: int, delay_s: float) -> None:
    """SIGKILL, ``delay_s`` after the checkpoint has been written so many times."""
    last = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    deadline = time.monotonic() + 100
    while writes and time.monotonic() < deadline and process.poll() is None:
        now = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        writes, last = (writes - 1, now) if now != last else (writes, last)
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was over before it was killed"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_meta_train_killed_twice_ends_with_the_same_bytes(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TINY | {"meta-train": TINY["meta-train"] | {"epochs": EPOCHS}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "graphs").symlink_to(pipeline / "graphs")
    monkeypatch.chdir(tmp_path)
    run("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", "whole/metanet.safetensors")
    checkpoint = tmp_path / "broken" / "metanet.checkpoint.safetensors"
    for writes, delay_s in ((3, 0.01), (1, 0.03)):  # somewhere in an epoch, perhaps in the middle of a write
        kill_after_writes(start(tmp_path, "broken/metanet.safetensors"), checkpoint, writes, delay_s)
        assert checkpoint.exists()
        assert not (tmp_path / "broken" / "metanet.safetensors").exists()
    finish(start(tmp_path, "broken/metanet.safetensors"))
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    broken = {path.name: path.read_bytes() for path in (tmp_path / "broken").iterdir()}
    assert set(whole) == {"metanet.safetensors", "metanet.history.csv"}
    assert {name: data for name, data in broken.items() if not name.startswith(".")} == whole
