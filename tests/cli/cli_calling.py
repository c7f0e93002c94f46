"""Calling the command line inside this process, and settings that are tiny."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typer.testing import CliRunner

from metaprune_cli.cli import app

TINY = {
    "data": {"dataset": "digits", "train_limit": 120, "batch_size": 40},
    "zoo": {
        "members": [{"arch": "cifar:resnet8", "arch_args": {"width": 0.25}, "count": 3, "heldout": 1}],
        "validation": 1,
        "train": {"epochs": 2, "lr": 0.02},
    },
    "metanet": {"layers": 1, "hidden": 4},
    "meta-train": {"epochs": 2, "batches": 1, "batch_size": 40, "validate_every": 1},
    "prune": {"speedup": [1.5, 2]},
    "finetune": {"epochs": 2, "lr": 0.01},
}


@dataclass(frozen=True)
class Ran:
    """One call of the command line."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as exactly one JSON value."""
        return json.loads(self.out)


def call(*arguments: object) -> Ran:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Ran(result.exit_code, result.stdout, result.stderr)


def run(*arguments: object) -> Ran:
    """A call that must succeed."""
    ran = call(*arguments)
    assert ran.code == 0, ran.err
    return ran


def lay_own_code(folder: Path, code: str, test: str) -> str:
    """Write a module and weights for its class into a folder; its name is another for each test: imports stay."""
    name = f"own_{abs(hash(test))}"
    (folder / f"{name}.py").write_text(code)
    torch.save(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).state_dict(), folder / "model.pt")
    return name
