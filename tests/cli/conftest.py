"""A tiny pipeline, run once through the command line, for every test to look at and to go on from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from cli_calling import TINY, run


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which zoo, encode, meta-train and transform have run."""
    folder = tmp_path_factory.mktemp("pipeline")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("params.yaml").write_text(yaml.safe_dump(TINY))
        run("zoo", "-o", "zoo")
        run("encode", "zoo/train", "zoo/validation", "-o", "graphs")
        run("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", "metanet.safetensors")
        run("transform", "zoo/heldout", "--metanet", "metanet.safetensors", "-o", "transformed")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def work(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same directory as the working directory."""
    monkeypatch.chdir(pipeline)
    return pipeline


@pytest.fixture
def model(work: Path) -> Path:
    """The held-out model."""
    return Path("zoo/heldout/resnet8-3.safetensors")
