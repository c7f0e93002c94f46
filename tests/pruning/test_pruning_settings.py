"""Widths that a class keeps in an object of settings: found by value, brought in line, written to files."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune_cli as mp
from metaprune_cli.artifacts import read_artifact
from metaprune_cli.errors import InputError
from metaprune_cli.graph.widths import integers_of, set_widths_
from metaprune_cli.models.save import save_model


@dataclass(frozen=True)
class Frozen:
    width: int = 24
    heads: int = 4
    hidden: int = 48


@dataclass
class Config:
    width: int = 24
    heads: int = 4
    hidden: int = 48


SETTINGS: dict[str, Callable[[], Any]] = {
    "dataclass": Config,
    "frozen": Frozen,
    "namespace": lambda: types.SimpleNamespace(width=24, heads=4, hidden=48),
    "dict": lambda: {"width": 24, "heads": 4, "hidden": 48},
    "list": lambda: [24, 4, 48],
    "tuple": lambda: (24, 4, 48),
}
_PLACES = ("width", "heads", "hidden")


class Block(nn.Module):
    """A block that asks one object, shared by all, how wide its layers are."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings = settings
        self.up, self.down = nn.Linear(24, 48), nn.Linear(48, 24)
        self.qkv, self.mixed = nn.Linear(24, 72), nn.Linear(24, 24)

    def _get(self, name: str) -> int:
        if isinstance(self.settings, list | tuple):
            return self.settings[_PLACES.index(name)]
        return self.settings[name] if isinstance(self.settings, dict) else getattr(self.settings, name)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (part.view(batch, length, self._get("heads"), 6).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        x = x + self.mixed(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, -1))
        out: Tensor = x + self.down(self.up(x).view(-1, self._get("hidden")).relu()).view(batch, length, -1)
        return out


def net(kind: str = "dict") -> nn.Module:
    torch.manual_seed(0)
    settings = SETTINGS[kind]()
    return nn.Sequential(nn.Linear(6, 24), Block(settings), Block(settings), nn.Linear(24, 3)).eval()


@pytest.mark.parametrize("kind", SETTINGS)
def test_numbers_of_settings_follow_and_the_original_keeps_its_own(kind: str) -> None:
    model, x = net(kind), torch.randn(1, 5, 6)
    before = integers_of(model[1])  # type: ignore[index]
    pruned = mp.prune(model, x, speedup=4.0, scope="family", route="class")
    one, other = pruned.model[1], pruned.model[2]  # type: ignore[index]
    assert one._get("hidden") == one.up.out_features < 48
    assert other._get("hidden") == other.up.out_features
    assert one._get("heads") < 4
    assert pruned.model(torch.randn(3, 9, 6)).shape == (3, 9, 3)
    assert integers_of(model[1]) == before  # type: ignore[index]


def test_a_file_keeps_the_numbers_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "settled", types.ModuleType("settled"))
    sys.modules["settled"].net = net  # type: ignore[attr-defined]
    x = torch.randn(1, 5, 6)
    small = mp.prune(net(), x, speedup=4.0, scope="family", route="class").model
    save_model(small, tmp_path / "small.safetensors", arch="settled:net")
    widths = read_artifact(tmp_path / "small.safetensors").document["widths"]
    assert widths == {"1": {f"settings.{name}": small[1]._get(name) for name in ("heads", "hidden")}}  # type: ignore[index]
    again = mp.load_model(tmp_path / "small.safetensors", allow_import=True)
    torch.testing.assert_close(again(x), small(x))


@pytest.mark.parametrize(
    "wrong",
    ["settings.hidden.x", "settings.more", "settings.__class__", "settings", "_modules.up", "qkv.out_features", "up.x"],
)
def test_no_other_numbers_are_lowered(wrong: str) -> None:
    model = net("dataclass")
    with pytest.raises(InputError, match="Widths do not fit the model's attributes"):
        set_widths_(model, {"1": {wrong: 3}})
    assert integers_of(model[1])["settings.hidden"] == 48  # type: ignore[index]
