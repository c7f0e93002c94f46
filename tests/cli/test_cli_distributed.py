"""What trains, by two processes: one voice, the same files, an end when one is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cli_calling import TINY, Ran, call, run
from PIL import Image
from ranks_calling import on_ranks
from safetensors.torch import load_file

from metaprune_cli.cli.run import OF_SEVERAL

ROOT = Path(__file__).parents[2]
STARTER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "metaprune_cli")
EPOCHS = 12
META_TRAIN = ("meta-train", "graphs/train", "--validation", "graphs/validation", "--members-per-step", 2)


def call_at(folder: str, arguments: tuple[str, ...]) -> Ran:
    os.chdir(folder)
    return call(*arguments)


def by_two(*arguments: object) -> tuple[Ran, Ran]:
    """The same call by two processes that know of each other."""
    first, second = on_ranks(call_at, str(Path.cwd()), tuple(map(str, arguments)))
    return first, second


def pictures(root: Path) -> Path:
    """Twenty-four images of two classes, one darker than the other."""
    generator = np.random.default_rng(0)
    for number in range(24):
        label, part = divmod(number, 12)
        folder = root / ("train" if part < 10 else "test") / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(90 * label, 90 * label + 160, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{part}.png")
    return root


def test_a_zoo_by_two_processes_has_the_bytes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"dataset": "imagefolder", "data_root": str(pictures(tmp_path / "images")), "image_size": 8, "batch_size": 8}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"data": data, "zoo": TINY["zoo"]}))
    monkeypatch.chdir(tmp_path)
    alone = run("zoo", "-o", "zoo", "--json")
    files = {path: path.read_bytes() for path in sorted(Path("zoo").rglob("*.safetensors"))}
    Path("zoo").rename("alone")
    first, second = by_two("zoo", "-o", "zoo", "--json")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.json == alone.json
    assert len(first.json["models"]) == 4
    assert (second.out, second.err) == ("", "")
    assert {path: path.read_bytes() for path in sorted(Path("zoo").rglob("*.safetensors"))} == files


def test_finetune_by_two_together_writes_once_and_resumes(model: Path, tmp_path: Path) -> None:
    command = ("finetune", model, "-o", tmp_path / "tuned.safetensors", "--ddp", "--resume", "--json")
    first, second = by_two(*command)
    assert (first.code, second.code, second.out) == (0, 0, ""), first.err + second.err
    [tuned] = first.json["models"]
    assert tuned["epochs"] == TINY["finetune"]["epochs"]
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.safetensors"]
    again, _ = by_two(*command)
    assert again.json["models"] == [tuned | {"epochs": 0}]
    [alone] = run(*command).json["models"]  # parts of other sizes: not the same run
    assert alone["epochs"] == TINY["finetune"]["epochs"]
    assert alone["val_loss"] == pytest.approx(tuned["val_loss"], rel=0.1)


@pytest.mark.parametrize(
    "command", [("dhp", "-s", "1.3", "--epochs", "1"), ("pruning-net", "--epochs", "1")], ids=lambda command: command[0]
)
def test_models_are_shared_out_and_the_bytes_are_those_of_one(
    model: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    other = tmp_path / "other.safetensors"
    shutil.copy(model, other)
    run(*command, model, other, "-o", tmp_path / "alone", "-q")
    ran = by_two(*command, model, other, "-o", tmp_path / "shared", "-q")
    assert [process.code for process in ran] == [0, 0], ran[0].err + ran[1].err
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / way).iterdir()} for way in ("alone", "shared")
    )
    assert len(alone) == 2
    assert shared == alone


def test_dhp_by_two_together_writes_once_and_resumes(model: Path, tmp_path: Path) -> None:
    command = ("dhp", model, "-s", "1.2,1.3", "--epochs", "2", "-o", tmp_path / "out", "--ddp", "--resume", "--json")
    first, second = by_two(*command)
    assert (first.code, second.code, second.out) == (0, 0, ""), first.err + second.err
    assert len(list((tmp_path / "out").iterdir())) == 2
    again, _ = by_two(*command)
    assert [one["achieved"] for one in again.json["models"]] == [one["achieved"] for one in first.json["models"]]


def test_every_command_that_asks_for_ranks_may_have_them() -> None:
    asking = {path.stem for path in (ROOT / "metaprune_cli" / "cli").glob("*.py") if "ranks_on(" in path.read_text()}
    assert asking == set(OF_SEVERAL)


def test_an_error_of_all_is_told_once(work: Path) -> None:
    ran = by_two("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", "never.safetensors")
    assert [process.code for process in ran] == [2, 2]
    told = [process.err for process in ran if process.err]
    assert len(told) == 1
    assert "--members-per-step 2" in told[0]


def test_a_command_that_cannot_be_shared_says_so(model: Path) -> None:
    ran = by_two("encode", model, "-o", "never.safetensors")
    assert [process.code for process in ran] == [2, 2]
    assert sum("run it without torchrun" in process.err for process in ran) == 1


def test_ddp_and_jobs_exclude_each_other(model: Path) -> None:
    ran = call("finetune", model, "--ddp", "--jobs", "2", "-o", "never.safetensors")
    assert ran.code == 2
    assert "all processes train one model" in ran.err


def children_of(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "metaprune_cli" in line]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_process_ends_the_run_which_goes_on_with_resume(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TINY | {"meta-train": TINY["meta-train"] | {"epochs": EPOCHS}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "graphs").symlink_to(pipeline / "graphs")
    monkeypatch.chdir(tmp_path)
    run(*META_TRAIN, "-o", "whole/metanet.safetensors")
    output, checkpoint = Path("broken/metanet.safetensors"), Path("broken/metanet.checkpoint.safetensors")
    err = start_and_kill(tmp_path, (*META_TRAIN, "-o", output), checkpoint)
    assert err.count("Process lost") == 1
    assert "--resume" in err
    assert "exitcode  : 5" in err
    assert not output.exists()
    first, second = by_two(*META_TRAIN, "-o", output, "--resume", "--json")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    whole, broken = load_file("whole/metanet.safetensors"), load_file(output)
    for name, tensor in whole.items():
        torch.testing.assert_close(broken[name], tensor, rtol=0, atol=1e-5, msg=name)
    assert json.loads(first.out)["epochs"] == EPOCHS
    assert not checkpoint.exists()


def start_and_kill(folder: Path, arguments: tuple[object, ...], checkpoint: Path) -> str:
    """Start two processes, kill the second after their first epoch, and return what the run then says."""
    process = subprocess.Popen(
        [sys.executable, *STARTER, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    os.kill(children_of(process.pid)[-1], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    return err
