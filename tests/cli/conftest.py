"""A tiny pipeline, run once through the command line, for every test to look at and to go on from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from cli_calling import TINY, run
from filelock import FileLock


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A working directory in which zoo, encode, meta-train and transform have run; a copy for each process of tests."""
    whole = tmp_path_factory.getbasetemp()
    made = (whole if worker_id == "master" else whole.parent) / "pipeline-of-all"
    with FileLock(f"{made}.lock"):
        if not (made / "transformed").is_dir():
            _make(made)
    return Path(shutil.copytree(made, whole / "pipeline"))


def _make(folder: Path) -> None:
    before = Path.cwd()
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    try:
        Path("params.yaml").write_text(yaml.safe_dump(TINY))
        run("zoo", "-o", "zoo")
        run("encode", "zoo/train", "zoo/validation", "-o", "graphs")
        run("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", "metanet.safetensors")
        run("transform", "zoo/heldout", "--metanet", "metanet.safetensors", "-o", "transformed")
    finally:
        os.chdir(before)


@pytest.fixture
def work(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same directory as the working directory."""
    monkeypatch.chdir(pipeline)
    return pipeline


@pytest.fixture
def model(work: Path) -> Path:
    """The held-out model."""
    return Path("zoo/heldout/resnet8-3.safetensors")
