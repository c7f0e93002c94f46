"""One's own class as people type it, and what shells complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_calling import call, lay_own_code, run

from metaprune_cli.artifacts import read_document
from metaprune_cli.cli.completion import architectures, criteria, metanetworks
from metaprune_cli.cli.own_code import own_name

CODE = """
from torch import nn

LOADED = open("loaded", "a").write("x")


def small():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Own(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class _Private:
    pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the working directory, another one for each test: what was imported stays."""
    monkeypatch.chdir(tmp_path)
    return lay_own_code(Path(), CODE, request.node.name)


def test_a_file_of_code_is_its_module(here: str) -> None:
    run("prune", "model.pt", "--arch", f"{here}.py:Own", "--input-shape", "4", "-s", "1.5", "-q")
    architecture = read_document(Path("model.pruned-1.5x.safetensors"))["architecture"]
    assert architecture["name"] == f"{here}:Own"


@pytest.mark.parametrize("ending", ["", ".py"])
def test_a_file_alone_has_its_classes_and_functions_listed_and_is_not_imported(here: str, ending: str) -> None:
    ran = call("prune", "model.pt", "--arch", f"{here}{ending}", "-s", "2")
    assert ran.code == 2
    assert f"--arch {here}:Own" in ran.err
    assert f"--arch {here}:small" in ran.err
    assert "_Private" not in ran.err
    assert not Path("loaded").exists()


def test_code_elsewhere_is_refused_as_no_module_would_lead_to_it(here: str, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"outside-{here}.py"
    outside.write_text(CODE)
    ran = call("prune", "model.pt", "--arch", f"{outside}:Own", "-s", "2")
    assert ran.code == 2
    assert "not below the working directory" in " ".join(ran.err.split())
    outside.unlink()


def test_other_names_are_left_as_they_are() -> None:
    for name in ("cifar:resnet8", "torchvision:resnet50", "package.module:factory", "resnet50"):
        assert own_name(name) == name


def test_shells_complete_names(here: str) -> None:
    assert criteria("ta") == ["taylor"]
    assert "cifar:resnet20" in architectures("cifar:resnet2")
    assert architectures(here[:9])[-1:] == [f"{here}:"]
    assert metanetworks("b") == ["builtin", "builtin-images"]


def test_an_option_of_several_numbers_takes_them_one_after_the_other(here: str) -> None:
    opened = ("model.pt", "--arch", f"{here}:Own", "--input-shape", "4", "--dry-run", "--json", "-q")
    asked = [one["requested"] for one in run("prune", "--speedup", "1.5", "1.8", *opened).json["models"]]
    assert asked == [1.5, 1.8]
    Path("1.8").mkdir()  # a path that is there is meant as a path
    assert call("prune", "--speedup", "1.5", "1.8", *opened).code == 2
