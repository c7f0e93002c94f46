"""The bench on public restoration networks, with a tiny one: rows, training in slices, the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from metaprune_cli.models import Architecture, build, save_model
from metaprune_cli.reports.png import png_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_rows_come_image_by_image_and_epoch_by_epoch(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    bench = __import__("restoration")
    draws = torch.Generator().manual_seed(0)
    for folder, count in (("train", 4), ("Set12", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            pixels = torch.randint(0, 256, (1, 24, 24), generator=draws, dtype=torch.uint8)
            (tmp_path / folder / f"{number}.png").write_bytes(png_of(pixels))
    architecture = Architecture("restore:dncnn", {"depth": 4, "width": 8, "in_channels": 1})
    save_model(build(architecture), tmp_path / "tiny.safetensors", arch=architecture)
    results = tmp_path / "results.jsonl"
    line = ["restoration.py", "run", str(tmp_path / "tiny.safetensors"), "--name", "tiny", "--task", "denoising"]
    line += ["--data-root", str(tmp_path), "--test-set", "Set12", "--speedups", "2", "--epochs", "0", "2"]
    line += ["--patch", "16", "--patches", "32", "--results", str(results), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", line)

    def call(allowed: int) -> list[dict[str, float]]:
        left = iter(range(allowed))

        def check(_: object) -> None:
            if next(left, None) is None:
                raise bench.PausedError

        monkeypatch.setattr(bench.Slice, "check", check)
        bench.main()
        return [json.loads(row) for row in results.read_text().splitlines()] if results.exists() else []

    assert call(2) == []  # one image of the whole network
    assert [row["speedup"] for row in call(2)] == [1.0]
    rows = call(100)
    assert [(row["speedup"], row["epochs"], row["images"]) for row in rows] == [(1.0, 0, 2), (2.0, 0, 2), (2.0, 2, 2)]
    assert all(row["achieved"] >= 2 for row in rows[1:])
    monkeypatch.setattr(sys, "argv", ["", "table", "--results", str(results), "-o", str(tmp_path / "page.md")])
    bench.main()
    whole, small = rows[0]["psnr"], rows[1]["psnr"]
    assert f"| tiny, uniform, repaired only | {whole:.2f} | {small:.2f} |" in (tmp_path / "page.md").read_text()
