"""inspect: what it says of an artifact, and where it draws one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.models import save_model
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.stages.inspect import inspect


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "small.graph.safetensors"
    encode(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(1, 3)).save(path)
    return path


def test_a_graph_is_drawn_and_drawn_again(graph: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "small.svg"
    assert inspect(graph, target).drawing == str(target)
    first = target.read_bytes()
    assert b"<title>small</title>" in first
    inspect(graph, target)
    assert target.read_bytes() == first
    assert [path.name for path in target.parent.iterdir()] == ["small.svg"]


def test_without_a_place_nothing_is_drawn(graph: Path) -> None:
    found = inspect(graph)
    assert found.drawing is None
    assert found.graph is not None
    assert [path.name for path in graph.parent.iterdir()] == [graph.name]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("other.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>", "not a drawing of ours"),
        ("text.svg", "words", "not a drawing of ours"),
        ("empty.svg", "", "not a drawing of ours"),
        ("picture.png", None, "not named as an SVG file"),
        ("a.svg", "folder", "is a folder"),
    ],
)
def test_a_drawing_replaces_nothing_else(
    graph: Path, tmp_path: Path, name: str, content: str | None, problem: str
) -> None:
    target = tmp_path / name
    if content == "folder":
        target.mkdir()
    elif content is not None:
        target.write_text(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=problem):
        inspect(graph, target)
    assert sorted(tmp_path.iterdir()) == before
    assert not target.is_file() or target.read_text() == content


def test_only_a_graph_is_drawn(tmp_path: Path) -> None:
    model, target = tmp_path / "model.safetensors", tmp_path / "model.svg"
    architecture = Architecture("torch.nn:Linear", {"in_features": 3, "out_features": 2}, (3,))
    save_model(nn.Linear(3, 2), model, arch=architecture)
    with pytest.raises(InputError, match=r"Only a neuron graph can be drawn[\s\S]*kind model"):
        inspect(model, target)
    assert not target.exists()
