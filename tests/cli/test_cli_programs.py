"""A pruned model whose class did not follow, through every command: it needs none of the code it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_calling import run
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.graph.program.module import Program

FACTORY = "nets_of_the_user:net"


class Net(nn.Module):
    """A small vision transformer with a BatchNorm; its attention has its width in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(1, 16, 2, 2), nn.BatchNorm2d(16)
        self.position = nn.Parameter(torch.randn(1, 16, 16) * 0.02)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patch(x)).flatten(2).transpose(1, 2) + self.position
        return self.head(self.encoder(x).mean(1))


@pytest.fixture
def program(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pruned from a state dict and a factory that only this command could import."""
    (tmp_path / "nets_of_the_user.py").write_text("from test_cli_programs import Net as net\n")
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        arch = ("--arch", FACTORY, "--input-shape", "1,8,8", "--route", "program")
        run("prune", tmp_path / "net.pt", *arch, "--speedup", "1.5", "-o", tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


class Fixed(nn.Module):
    """A width in Python that the class cannot do without; in the middle one that it can."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x.flatten(1)).relu().view(-1, 4, 8).transpose(1, 2).reshape(-1, 32)
        return self.c(self.b(h).relu())


def test_the_route_and_what_was_locked_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixed_nets.py").write_text("from test_cli_programs import Fixed as net\n")
    torch.manual_seed(0)
    torch.save(Fixed().state_dict(), tmp_path / "net.pt")
    monkeypatch.syspath_prepend(tmp_path)
    start = ("prune", tmp_path / "net.pt", "--arch", "fixed_nets:net", "--input-shape", "1,8,8")
    start += ("--speedup", "1.4", "--scope", "family")
    by_class = run(*start, "-o", tmp_path / "class.safetensors", "--route", "class")
    assert "Locked, since what is left would not run" in by_class.out
    assert "program" not in by_class.err
    (row,) = run(*start, "--dry-run", "--route", "class", "--json").json["models"]
    assert (row["route"], [held["family"] for held in row["held"]]) == ("class", ["a"])
    by_program = run(*start, "-o", tmp_path / "program.safetensors", "--route", "program")
    assert "The model's class could not adapt" in by_program.err


def changed(first: Path, second: Path) -> set[str]:
    """The entries that differ."""
    one, two = mp.load_model(first).state_dict(), mp.load_model(second).state_dict()
    return {name for name in one if not torch.equal(one[name], two[name])}


def test_a_program_goes_through_every_stage(program: Path, work: Path) -> None:
    assert isinstance(mp.load_model(program), Program)
    place = program.parent
    graph = run("encode", program, "-o", place / "graph.safetensors", "--json").json["graphs"][0]
    run("decode", place / "graph.safetensors", "-o", place / "back.safetensors")
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(mp.load_model(place / "back.safetensors")(images), mp.load_model(program)(images))

    run("transform", program, "--metanet", work / "metanet.safetensors", "-o", place / "rewritten.safetensors")
    again = place / "again.safetensors"
    pruned = run("prune", place / "rewritten.safetensors", "--speedup", "1.3", "-o", again, "--json").json["models"][0]
    assert pruned["macs_before"] == graph["macs"]
    assert pruned["error"] < 1e-9

    run("finetune", again, "--epochs", "1", "-o", place / "tuned.safetensors")
    assert {"head.weight", "encoder.self_attn.in_proj_weight"} <= changed(again, place / "tuned.safetensors")
    run("finetune", program, "--epochs", "0", "--recalibrate", "-o", place / "recalibrated.safetensors")
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert changed(program, place / "recalibrated.safetensors") == statistics

    rows = run("eval", again, place / "tuned.safetensors", "--json").json["models"]
    assert [row["macs"] for row in rows] == [pruned["macs_after"]] * 2


def test_programs_are_material_for_meta_training(program: Path, work: Path) -> None:
    graphs = program.parent / "graphs"
    graphs.mkdir()
    run("encode", program, "-o", graphs / "program.graph.safetensors")
    new = program.parent / "new.safetensors"
    run("meta-train", "graphs/train", graphs, "--validation", "graphs/validation", "-o", new)
    assert mp.MetaNetwork.load(new).config.layers == 1
