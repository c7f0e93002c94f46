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
from metaprune_cli.reports.layers import LayerFigures
from metaprune_cli.reports.png import is_png
from metaprune_cli.stages.inspect import inspect
from metaprune_cli.workflows.loading import ModelSource


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
        ("picture.jpg", None, "The picture must be a PNG file"),
        ("model.png", "words", "not a picture"),
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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    architecture = Architecture("torch.nn:Linear", {"in_features": 3, "out_features": 2}, (3,))
    save_model(nn.Linear(3, 2), path, arch=architecture)
    return path


@pytest.mark.parametrize("name", ["model.svg", "model.png"])
def test_code_that_a_model_names_is_not_imported_to_draw_it(model: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="importing runs its code"):
        inspect(model, tmp_path / name)
    assert not (tmp_path / name).exists()
    assert inspect(model, tmp_path / name, ModelSource(allow_import=True)).drawing == str(tmp_path / name)


def test_the_layers_of_a_graph_are_drawn(graph: Path, tmp_path: Path) -> None:
    layers = inspect(graph, tmp_path / "layers.png").layers
    assert layers == (LayerFigures("0", 5, None, 15, 0.6), LayerFigures("2", 2, None, 10, 0.4))
    assert is_png(tmp_path / "layers.png")
