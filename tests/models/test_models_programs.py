"""Programs in artifacts: read again anywhere, used like any model, refused where they are damaged."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.module import Program
from metaprune_cli.models.programs import program_from_document, program_to_document, tensors_of


class Heads(nn.Module):
    """A class that fixes its widths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.tied = nn.Linear(8, 3)
        self.tied.weight = self.b.weight

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = (self.norm(self.a(x)) * torch.arange(1.0, 9.0)).view(-1, 8)
        return {"scores": self.b(x), "others": (self.tied(x), None)}


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    model, x = Heads().eval(), torch.randn(1, 4)
    graph = mp.encode(model, x)
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    kept[graph.units.prunable.nonzero()[:3]] = False
    return Captured.of(model, graph, x).without(graph, kept)


def test_saved_and_loaded_in_a_fresh_process(program: Program, tmp_path: Path) -> None:
    file, x = tmp_path / "small.model", torch.randn(5, 4)
    mp.save_model(program, file, arch="nowhere.at:all")
    torch.save((x, program(x)), tmp_path / "expected.pt")
    script = f"""
import torch, metaprune_cli as mp
x, expected = torch.load({str(tmp_path / "expected.pt")!r})
small = mp.load_model({str(file)!r})
torch.testing.assert_close(small(x), expected, rtol=0, atol=0)
assert small.get_parameter("b.weight") is small.get_parameter("tied.weight")
small.train()(x)["scores"].sum().backward()
assert int(small.get_buffer("norm.num_batches_tracked")) == 1
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_program_can_be_encoded_and_pruned_again(program: Program) -> None:
    x = torch.randn(1, 4)
    graph = mp.encode(program, x)
    assert torch.equal(mp.decode(graph, program)(x)["scores"], program(x)["scores"])
    assert bool(graph.units.prunable.any())
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    kept[graph.units.prunable.nonzero()[0]] = False
    smaller = Captured.of(program, graph, x).without(graph, kept)
    assert smaller.get_parameter("a.weight").shape == (4, 4)
    assert list(smaller.state_dict()) == list(program.state_dict())


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any], dict[str, Tensor]], None]:
    return lambda document, _: change(document)


DAMAGES: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], object]] = {
    "an unknown operator": changed(lambda d: d["scripts"]["eval"]["steps"][0].update(operator="aten.nothing.default")),
    "a refused operator": changed(lambda d: d["scripts"]["eval"]["steps"][0].update(operator="aten.from_file.default")),
    "an operator of Python": changed(lambda d: d["scripts"]["eval"]["steps"][0].update(operator="os.system.default")),
    "a missing constant": lambda _, tensors: [tensors.pop(n) for n in list(tensors) if n.startswith("_constants")],
    "a missing entry": lambda _, tensors: tensors.pop("a.weight"),
    "no steps": changed(lambda d: d["scripts"]["eval"].pop("steps")),
    "a step that is no step": changed(lambda d: d["scripts"]["eval"]["steps"].append(3)),
    "an argument of no kind": changed(lambda d: d["scripts"]["eval"]["steps"][0].update(args=[{"lambda": 1}])),
    "no parameters": changed(lambda d: d.pop("parameters")),
    "a type that is none": changed(lambda d: d.update(examples=[[[1, 4], "nothing"]])),
    "a value that nothing makes": changed(lambda d: d["scripts"]["eval"]["steps"].pop(0)),
    "no modes": changed(lambda d: d.update(scripts={})),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_documents_are_refused(program: Program, name: str) -> None:
    document = json.loads(json.dumps(program_to_document(program)))
    tensors = dict(copy.copy(tensors_of(program)))
    DAMAGES[name](document, tensors)
    with pytest.raises(CorruptFileError) as caught:
        program_from_document(document, tensors)
    assert caught.value.exit_code == 4
