"""Sound artifacts of every kind, small, made by the commands themselves: what the hostile files are made from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from attack import attack
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.artifacts import read_artifact
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.registry import build
from metaprune_cli.workflows.made import Checkpoint

SETTINGS = {
    "data": {"dataset": "digits", "train_limit": 80, "batch_size": 40},
    "metanet": {"layers": 1, "hidden": 4},
    "meta-train": {"epochs": 1, "batches": 1, "batch_size": 40},
    "prune": {"speedup": [1.5], "repair": "none"},
    "finetune": {"epochs": 2, "lr": 0.01},
    "eval": {"latency_runs": 1},
}

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "model": (
        "inspect FILE",
        "inspect FILE --json",
        "encode FILE -o out/x.safetensors",
        "eval FILE --json",
        "eval model.safetensors FILE -o out/report --report out/report.html",
        "prune FILE -o out/x.safetensors",
        "sparsify FILE --kind unstructured --sparsity 0.5 -o out/x.safetensors",
        "finetune FILE --epochs 1 -o out/x.safetensors",
        "transform FILE --metanet metanet.safetensors -o out/x.safetensors",
        "bench FILE --runs 5 --batch 1",
    ),
    "graph": (
        "inspect FILE",
        "inspect FILE --draw out/x.svg",
        "decode FILE -o out/x.safetensors",
        "transform FILE --metanet metanet.safetensors -o out/x.safetensors",
        "meta-train FILE --validation graph.safetensors -o out/x.safetensors",
    ),
    "metanetwork": ("inspect FILE", "transform model.safetensors --metanet FILE -o out/x.safetensors"),
    "hypernetwork": ("inspect FILE", "list pruningnets --folder ."),
    "checkpoint": ("inspect FILE", "finetune model.safetensors -o out/x.safetensors --resume"),
}


class Fixed(nn.Module):
    """A class that fixes its widths, so that what is left of it is a program; with more than a tensor for output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8 * 36, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Scores of digits."""
        return {"logits": self.linear(self.norm(self.conv(x)).relu().view(-1, 8 * 36))}


@dataclass(frozen=True)
class Sound:
    """One good file: its name, kind, document and tensors."""

    name: str
    kind: str
    document: dict[str, Any]
    tensors: dict[str, Tensor]
    data: bytes


def make(folder: Path) -> list[Sound]:
    """Make one of each in ``folder``, and read them."""
    (folder / "params.yaml").write_text(yaml.safe_dump(SETTINGS))
    torch.manual_seed(0)
    before = Path.cwd()
    os.chdir(folder)
    try:
        _make()
    finally:
        os.chdir(before)
    return [_read(path) for path in sorted(folder.glob("*.safetensors"))]


def _make() -> None:
    narrow = Architecture("cifar:resnet8", {"width": 0.25, "in_channels": 1}, (1, 8, 8))
    mp.save_model(build(narrow).eval(), "model.safetensors", arch=narrow)
    _run("prune model.safetensors -o pruned.safetensors")
    _run("sparsify model.safetensors --kind unstructured --sparsity 0.5 -o sparse.safetensors")
    _run("encode pruned.safetensors -o graph.safetensors")
    _run("meta-train graph.safetensors --validation graph.safetensors -o metanet.safetensors")
    _run("pruning-net model.safetensors --epochs 1 -o hypernetwork.safetensors")
    small = mp.prune(Fixed().eval(), torch.zeros(1, 1, 8, 8), speedup=1.5).model
    mp.save_model(small, "program.safetensors", arch=Architecture("nowhere.at:all", {}, (1, 8, 8)))
    discard = Checkpoint.discard
    Checkpoint.discard = lambda self: None  # type: ignore[method-assign]
    try:
        _run("finetune model.safetensors -o x.safetensors")
    finally:
        Checkpoint.discard = discard  # type: ignore[method-assign]
    Path("x.safetensors").unlink()


def _run(words: str) -> None:
    done = attack(words.split(), Path.cwd())
    assert done.code == 0, done.text


def _read(path: Path) -> Sound:
    artifact = read_artifact(path)
    document = json.loads(json.dumps(artifact.document))
    return Sound(path.name, artifact.kind, document, dict(artifact.tensors), path.read_bytes())
