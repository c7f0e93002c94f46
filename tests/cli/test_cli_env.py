"""env: whatever is missing or broken, there is a report."""

from __future__ import annotations

import json
import platform
import re
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
from cli_calling import run
from torch.utils import collect_env

import metaprune_cli
from metaprune_cli.methods.metanet import compiled, kernel, selfcheck
from metaprune_cli.stages import env as stage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other process, which takes seconds."""
    monkeypatch.setattr(stage, "_engine", lambda: "works")


def test_it_names_versions_and_whether_the_engine_works() -> None:
    found = run("env", "--json").json
    assert found["metaprune"] == metaprune_cli.__version__
    assert found["python"].startswith(platform.python_version())
    assert re.match("works: differs from PyTorch by [0-9.e+-]+$|no C.. compiler", found["engine"])


def test_what_pytorch_says_of_the_system_stands_beside_it(no_engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_env, "get_cudnn_version", lambda run: "9.24")
    monkeypatch.delattr(collect_env, "get_nvidia_driver_version")
    found = run("env", "--json").json["pytorch"]
    assert found == {"os": found["os"], "libc_version": found["libc_version"], "cudnn_version": "9.24"} | {
        "nvidia_driver_version": None  # this PyTorch does not know it
    }
    rows = run("env").out
    assert re.search(r"^ +cudnn version +9.24", rows, re.MULTILINE)
    assert re.search(rf"^ +os +{re.escape(found['os'])}", rows, re.MULTILINE)
    assert "driver" not in rows


def test_every_package_that_metaprune_needs_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.split("[<>=]", text)[0] for text in project["dependencies"]} <= set(stage.PACKAGES)


def test_people_read_the_same(no_engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAPRUNE_TILE_MIB", "77")
    monkeypatch.setenv("SOME_PASSWORD", "do not show")
    out = run("env").out
    assert re.search(r"METAPRUNE_TILE_MIB +77", out)
    assert "do not show" not in out
    assert re.search(r"compiled engine +works", out)


def test_what_is_missing_is_said(no_engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(stage, "PACKAGES", ("no-such-package",))
    for name in ("_threads", "_cuda", "_gpus", "_git"):
        monkeypatch.setattr(stage, name, broken)
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    found = stage.env()
    assert (found.threads, found.cuda, found.gpus, found.compiler, found.commit) == (None, None, (), None, None)
    json.dumps(found.to_document(), allow_nan=False)
    lines = run("env").out.splitlines()
    missing = [line.split()[0] for line in lines if line.rstrip().endswith("not found")]
    assert missing == ["no-such-package", "CUDA", "C++"]
    assert "threads of torch unknown" in "\n".join(lines)


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (-signal.SIGILL, "", "stopped by SIGILL"),
        (1, "Traceback\nImportError: no libtorch", "could not be tried: ImportError: no libtorch"),
        (0, "", "works"),
    ],
)
def test_an_engine_that_ends_its_process_is_reported(
    monkeypatch: pytest.MonkeyPatch, code: int, error: str, said: str
) -> None:
    done = subprocess.CompletedProcess((), code, "works\n", error)
    monkeypatch.setattr(stage.subprocess, "run", lambda *_, **__: done)
    assert stage._engine() == said


def test_a_commit_is_that_of_our_own_checkout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_git", lambda root, *arguments: f"{root.parent}")  # an environment inside a repository
    assert stage._commit() is None


def test_the_verdict_tells_wrong_from_right_and_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compiler", lambda: ["c++"])
    monkeypatch.setattr(kernel, "available", lambda *_, **__: True)
    monkeypatch.setattr(kernel, "receive", selfcheck.tiles.receive)
    assert selfcheck.verdict() == "works: differs from PyTorch by 0.0e+00"
    monkeypatch.setattr(kernel, "receive", lambda *tensors: selfcheck.tiles.receive(*tensors) * 2)
    assert selfcheck.verdict().startswith("wrong: differs from PyTorch by ")
    monkeypatch.setattr(kernel, "available", lambda *_, **__: False)
    assert selfcheck.verdict().startswith("cannot be compiled: ")
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    assert selfcheck.verdict().startswith("no C++ compiler")
