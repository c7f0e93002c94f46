"""Commands in odd surroundings: streams that are closed, folders that are gone, environment variables of garbage."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_calling import call

from metaprune_cli.environment import ALLOCATOR, keep_freed_memory

CALL = """
import sys
from typer.testing import CliRunner
from metaprune_cli.cli import app
for words in {calls!r}:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, (words, result.output)
    assert "torch" not in sys.modules, words
"""
METAPRUNE = f"{sys.executable} -m metaprune_cli"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_wrong_paths_and_usage_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"\0")
    (tmp_path / "params.yaml").write_text("prune: {speedup: 0.5}")
    one = [str(tmp_path / "model.pt")]
    calls = [
        *(
            [name, "no-such-file"]
            for name in ("encode", "prune", "finetune", "eval", "export", "bench", "inspect", "decode")
        ),
        ["prune", *one, "--seed", "nan"],
        ["prune", *one, "-o", ""],
        ["prune", *one, "--max-ratio", "inf"],
        ["prune", *one, "--params", str(tmp_path / "params.yaml")],
        ["prune", *one, "--params", "/dev/zero"],
        ["encode", *one, "--input-shape", "1000000000,1000000000"],
        ["encode", *one, "--arch-arg", "x=1e999"],
        ["encode", *one, "--data-root", "no-such-folder"],
        ["finetune", *one, "--teacher", "no-such-file"],
        ["finetune", *one, "--epochs", "1000000000000000000"],
        ["bench", *one, "--batch", "0"],
    ]
    done = subprocess.run([sys.executable, "-c", CALL.format(calls=calls)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{} inspect no-such-file <&-", "does not exist"),
        ("{} inspect no-such-file 2>&-", ""),
        ("{} inspect no-such-file 2>/dev/full", ""),
        ("{} list --json >/dev/full", "No space left on device"),
        ("mkdir gone; cd gone; rmdir ../gone; {} encode no-such-file", "The working directory no longer exists"),
        ("env -u HOME TMPDIR=/no/such COLUMNS=0 TERM=odd {} inspect no-such-file", "does not exist"),
        ("RANK=0 WORLD_SIZE=odd {} zoo -o zoo", "environment variable WORLD_SIZE"),
    ],
)
def test_surroundings_end_in_an_exit_code_and_words(line: str, said: str, tmp_path: Path) -> None:
    done = shell(line.format(METAPRUNE), tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "odd", "WORLD_SIZE": "2"}, "environment variable RANK"),
        ({"RANK": "5", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555"}, "rank 5 of 2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "no MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "variable MASTER_PORT"),
    ],
    ids=["rank", "one too many", "no address", "port"],
)
def test_what_torchrun_does_not_set_is_refused_before_anybody_is_waited_for(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = call("zoo", "-o", tmp_path / "zoo", "--quiet")
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "Out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "Out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), "Out of memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    ],
    ids=["python", "torch", "gpu", "depth"],
)
def test_what_input_exhausts_is_no_fault_of_ours(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("metaprune_cli.stages.inspect.inspect", fails)
    (tmp_path / "file").write_bytes(b"x")
    ran = call("inspect", tmp_path / "file")
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
@pytest.mark.parametrize(("given", "changed"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_kept_unless_the_environment_settles_it(given: dict[str, str], changed: bool) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    code = "from metaprune_cli.environment import keep_freed_memory; print(keep_freed_memory())"
    ran = subprocess.run([sys.executable, "-c", code], env=clean | given, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(changed)


def test_without_an_allocator_to_set_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
