"""Staying in the class: widths kept as numbers are brought in line, parts shrink alike, and the rest is locked."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune_cli as mp
from metaprune_cli.artifacts import read_artifact
from metaprune_cli.errors import CorruptFileError, InputError, TargetError
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.widths import set_widths_
from metaprune_cli.models.save import save_model


class Conv1D(nn.Module):
    """A linear layer that keeps its width as a number, weights (in, out), as GPT-2 has."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.weight, self.bias = nf, nn.Parameter(torch.randn(nx, nf) * 0.1), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.size(-1)), self.weight)
        return flat.view(*x.size()[:-1], self.nf)


class Stored(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.longest = Conv1D(64, 16), Conv1D(5, 64), 64

    def forward(self, x: Tensor) -> Tensor:
        assert x.size(1) <= self.longest
        out: Tensor = self.b(torch.relu(self.a(x)))
        return out


class SelfAttention(nn.Module):
    """Three numbers: how many heads, how wide each, and how wide all of them."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.count, self.each, self.all = heads, width // heads, width
        self.q, self.k, self.v = (nn.Linear(16, width) for _ in range(3))
        self.o = nn.Linear(width, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(*x.shape[:2], self.count, self.each).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = (q @ k.transpose(2, 3) / self.each**0.5).softmax(-1)
        out: Tensor = x + self.o((scores @ v).transpose(1, 2).reshape(*x.shape[:2], self.all))
        return out


class Blocks(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(SelfAttention(), SelfAttention(), nn.Linear(16, 3))


class Thirds(nn.Module):
    """Queries, keys and values in equal thirds of one layer: the values' width follows the queries'."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(8, 36), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(*x.shape[:2], 2, -1).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out


class Fixed(nn.Module):
    """One layer that no class can follow, and one that is free."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu().view(-1, 4, 8).transpose(1, 2).reshape(-1, 32)
        out: Tensor = self.c(self.b(h).relu())
        return out


def built(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def test_a_width_kept_as_an_attribute_is_brought_in_line_and_no_other_number() -> None:
    model, x = built(Stored), torch.randn(1, 7, 16)
    pruned = mp.prune(model, x, speedup=2.0)
    assert pruned.report["route"] == "class"
    assert isinstance(pruned.model, Stored)
    assert (pruned.model.a.nf, pruned.model.b.nf, pruned.model.longest) == (pruned.model.a.weight.size(1), 5, 64)
    assert pruned.model(torch.randn(3, 9, 16)).shape == (3, 9, 5)  # another length, as the class takes
    assert model.a.nf == 64  # type: ignore[union-attr]


def test_auto_records_no_program_where_the_class_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[object] = []
    of = Captured.of
    monkeypatch.setattr(Captured, "of", lambda *given: (recorded.append(given), of(*given))[1])
    assert mp.prune(built(Blocks), torch.randn(1, 5, 16), speedup=1.3).report["route"] == "class"
    assert not recorded


@pytest.mark.parametrize("speedup", [1.3, 1.5])
def test_whole_heads_go_and_the_numbers_that_count_them_follow(speedup: float) -> None:
    model, x = built(Blocks), torch.randn(1, 5, 16)
    pruned = mp.prune(model, x, speedup=speedup, route="class")
    for block in (pruned.model[0], pruned.model[1]):  # type: ignore[index]
        assert block.count * block.each == block.all == block.q.out_features
    assert pruned.model(torch.randn(2, 11, 16)).shape == (2, 11, 3)
    assert pruned.plan.speedup >= speedup
    assert mp.count_macs(pruned.model, x) == pruned.plan.macs_after


def test_parts_of_one_layer_shrink_alike() -> None:
    model, x = built(Thirds), torch.randn(1, 5, 8)
    pruned = mp.prune(model, x, speedup=1.5, route="class", keep_heads=True)
    assert not isinstance(pruned.model, Program)
    assert not pruned.plan.held
    after = {family.name: family.after for family in pruned.plan.families if family.before == 6}
    assert len(set(after.values())) == 1
    assert pruned.model.qkv.out_features % 3 == 0  # type: ignore[union-attr, operator]
    assert pruned.plan.speedup >= 1.5


def test_what_the_class_cannot_follow_is_locked_and_the_target_met_otherwise() -> None:
    model, x = built(Fixed), torch.randn(1, 8)
    pruned = mp.prune(model, x, speedup=2.5, route="class")
    assert type(pruned.model) is Fixed
    assert [held.family for held in pruned.plan.held] == ["a"]
    assert pruned.plan.speedup >= 2.5
    with pytest.raises(TargetError, match="locked, because what is left would not run"):
        mp.prune(model, x, speedup=6.0, route="class")


def test_a_program_where_the_class_costs_much_and_where_it_is_asked_for() -> None:
    model, x = built(Fixed), torch.randn(1, 8)
    assert mp.prune(model, x, speedup=3.0).report["route"] == "program"
    assert (
        mp.prune(nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 2)), torch.randn(1, 4), route="program").report["route"]
        == "program"
    )


def test_what_generates_stays_in_its_class() -> None:
    class Generating(Fixed):
        def generate(self) -> None:
            """No program has this."""

    x = torch.randn(1, 8)
    assert mp.prune(built(Fixed), x, speedup=2.5).report["route"] == "program"
    assert mp.prune(built(Generating), x, speedup=2.5).report["route"] == "class"
    assert mp.prune(built(Generating), x, speedup=6.0).report["route"] == "program"  # no class reaches it


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A factory of models with widths in their attributes."""
    source = (
        "import torch\nfrom torch import nn\n"
        "class Conv1D(nn.Module):\n"
        "    def __init__(self, nf, nx):\n"
        "        super().__init__()\n"
        "        self.nf, self.weight = nf, nn.Parameter(torch.randn(nx, nf))\n"
        "    def forward(self, x):\n"
        "        return torch.mm(x.reshape(-1, x.size(-1)), self.weight).view(*x.size()[:-1], self.nf)\n"
        "def net():\n"
        "    return nn.Sequential(Conv1D(64, 16), nn.ReLU(), Conv1D(5, 64))\n"
    )
    (tmp_path / "kept_widths.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "kept_widths", importlib.import_module("kept_widths"))
    return "kept_widths:net"


def test_a_file_keeps_the_widths(place: str, tmp_path: Path) -> None:
    model = sys.modules["kept_widths"].net().eval()
    x = torch.randn(1, 7, 16)
    small = mp.prune(model, x, speedup=2.0).model
    save_model(small, tmp_path / "small.safetensors", arch=place)
    assert read_artifact(tmp_path / "small.safetensors").document["widths"] == {"0": {"nf": small[0].nf}}  # type: ignore[index]
    again = mp.load_model(tmp_path / "small.safetensors", allow_import=True)
    torch.testing.assert_close(again(x), small(x))
    smaller = mp.prune(again, x, speedup=2.0).model
    save_model(smaller, tmp_path / "smaller.safetensors", arch=place)
    torch.testing.assert_close(mp.load_model(tmp_path / "smaller.safetensors", allow_import=True)(x), smaller(x))
    save_model(model, tmp_path / "whole.safetensors", arch=place)
    assert "widths" not in read_artifact(tmp_path / "whole.safetensors").document


@pytest.mark.parametrize(
    "wrong",
    [
        {"0": {"nf": 65}},
        {"0": {"training": 1}},
        {"0": {"weight": 3}},
        {"0": {"_version": 1}},
        {"0": {"__class__": 1}},
        {"0": {"more": 3}},
        {"9": {"nf": 3}},
    ],
)
def test_only_numbers_that_the_model_has_are_lowered(place: str, wrong: dict[str, dict[str, int]]) -> None:
    model = sys.modules["kept_widths"].net()
    before = copy.deepcopy(vars(model[0]))
    with pytest.raises(InputError, match="Widths do not fit the model's attributes"):
        set_widths_(model, wrong)
    assert {k: v for k, v in vars(model[0]).items() if type(v) is int} == {
        k: v for k, v in before.items() if type(v) is int
    }


@pytest.mark.parametrize("wrong", [{"0": {"nf": 0}}, {"0": {"nf": True}}, {"0": {"nf": 3.5}}, {"0": 3}, [3]])
def test_a_file_with_other_widths_is_refused(place: str, tmp_path: Path, wrong: object) -> None:
    model = sys.modules["kept_widths"].net()
    path = tmp_path / "wrong.safetensors"
    save_model(model, path, arch=place, extra={"widths": wrong})
    with pytest.raises(CorruptFileError, match="widths"):
        mp.load_model(path, allow_import=True)
