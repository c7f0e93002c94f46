"""``metaprune export`` and ``metaprune bench``, as they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_calling import call, run


def test_export_writes_beside_its_input_or_where_it_is_told(model: Path, tmp_path: Path) -> None:
    ran = run("export", model, "--format", "safetensors", "-f", "torch-export", "-o", tmp_path, "--json", "-q")
    files = ran.json["exports"]
    assert [Path(file["output"]).name for file in files] == ["resnet8-3.weights.safetensors", "resnet8-3.pt2"]
    assert all(file["error"] < 1e-6 for file in files)  # last bits depend on where a file's tensors lie in memory
    assert [file["route"] for file in files] == ["class", "class"]
    assert torch.export.load(files[1]["output"]).module()(torch.randn(5, 1, 8, 8)).shape == (5, 10)
    assert ran.err == ""
    local = tmp_path / "net.safetensors"
    local.write_bytes(model.read_bytes())
    assert "net.weights.safetensors" in run("export", local, "--format", "safetensors").out
    assert (tmp_path / "net.weights.safetensors").is_file()


def test_bench_shows_every_model_at_every_batch_size(model: Path, tmp_path: Path) -> None:
    run("prune", model, "-s", "2", "-o", tmp_path / "small.safetensors", "-q")
    arguments = ("bench", tmp_path / "small.safetensors", "--base", model, "--batch", "1,3", "--runs", "5", "-q")
    rows = run(*arguments, "--json").json["models"]
    assert [(row["name"], row["batch"]) for row in rows] == [
        ("resnet8-3", 1),
        ("small", 1),
        ("resnet8-3", 3),
        ("small", 3),
    ]
    shown = run(*arguments, "--threads", "1").out
    assert "1 thread" in shown
    assert "small" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "zoo/heldout", "--format", "tflite"), "format"),
        (("export", "zoo/heldout"), "needs a folder"),
        (("export", "zoo/heldout", "-o", "out", "--static-batch", 0), "static_batch"),
        (("bench", "zoo/heldout", "--batch", "1,x"), "1,8,64"),
        (("bench", "zoo/heldout", "--batch", "0"), "batch"),
        (("bench", "missing.safetensors"), "does not exist"),
    ],
)
def test_bad_usage_is_one_panel_and_exit_code_2(work: Path, arguments: tuple[object, ...], message: str) -> None:
    ran = call(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
