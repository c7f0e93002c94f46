"""The command line as a shell sees it: real processes, signals, and what is imported when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_calling import TINY

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("zoo", "encode", "decode", "meta-train", "transform", "prune", "finetune", "eval", "inspect", "coverage"),
    *("sparsify", "iterate", "sensitivity", "export", "bench", "env", "list", "init"),
)
METAPRUNE = (sys.executable, "-m", "metaprune_cli")


def environment(**further: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | further


def shell(*command: str, **further: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment(**further), capture_output=True, text=True, timeout=120)


def test_help_of_every_command_imports_nothing_heavy() -> None:
    script = f"""
import sys
from typer.testing import CliRunner
from metaprune_cli.cli import app
for arguments in ([], *([command] for command in {COMMANDS!r})):
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0, result.output
heavy = {{"torch", "torchvision", "torch_geometric", "sklearn", "scipy", "matplotlib", "dvc"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = shell(sys.executable, "-c", script)
    assert done.stdout == "[]\n", done.stderr


def test_the_public_names_are_lazy_and_complete() -> None:
    script = """
import sys
import metaprune_cli
assert "torch" not in sys.modules
for name in metaprune_cli.__all__:
    assert callable(getattr(metaprune_cli, name)), name
    assert name in dir(metaprune_cli)
import metaprune_cli.stages.eval, metaprune_cli.stages.zoo
print(sorted({"torchvision", "torch_geometric", "sklearn", "matplotlib", "dvc"} & set(sys.modules)))
"""
    done = shell(sys.executable, "-c", script)
    assert done.stdout == "[]\n", done.stderr


def test_completion_answers_without_torch() -> None:
    imports = shell(
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "metaprune_cli",
        _METAPRUNE_COMPLETE="complete_bash",
        COMP_WORDS="metaprune me",
        COMP_CWORD="1",
    )
    assert imports.stdout.split() == ["meta-train"]
    assert "| torch\n" not in imports.stderr


def test_unknown_commands_and_options_are_bad_usage() -> None:
    assert shell(*METAPRUNE, "pruen").returncode == 2
    assert shell(*METAPRUNE, "prune", "--sped", "2").returncode == 2
    assert shell(*METAPRUNE, "--version").stdout.startswith("metaprune ")


def test_a_pipe_may_be_closed_early(pipeline: Path) -> None:
    command = f"{sys.executable} -m metaprune_cli inspect {pipeline / 'metanet.safetensors'} | head -n 1"
    done = shell("bash", "-c", command)
    assert "metanetwork" in done.stdout
    assert "Traceback" not in done.stderr


def test_results_and_progress_do_not_mix(pipeline: Path, tmp_path: Path) -> None:
    model = str(pipeline / "zoo" / "heldout" / "resnet8-3.safetensors")
    done = shell(*METAPRUNE, "encode", model, "-o", str(tmp_path / "g.safetensors"), "--json")
    assert json.loads(done.stdout)["graphs"][0]["input"] == model
    assert done.stderr == "encode: 1/1\n"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_exits_130_and_leaves_whole_files_only(tmp_path: Path) -> None:
    settings = TINY | {"zoo": TINY["zoo"] | {"train": {"epochs": 100_000}}}
    (tmp_path / "params.yaml").write_text(json.dumps(settings))
    # a shell's background job ignores the signal, and so would what it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*METAPRUNE, "zoo", "-o", "zoo"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    checkpoint = tmp_path / "zoo" / "train" / "resnet8-0.checkpoint.safetensors"
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "params.yaml", checkpoint]
    assert shell(*METAPRUNE, "inspect", str(checkpoint)).returncode == 0
