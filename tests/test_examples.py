"""The projects of examples/ are what `init` writes today, and its notebooks run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_tutorials import images
from typer.testing import CliRunner
from warm_python import WarmPython

from metaprune_cli.cli import app
from metaprune_cli.config import DataSettings, EvalSettings, OptimSettings, PruneSettings, ZooSettings
from metaprune_cli.config_loader import load_section

EXAMPLES = Path(__file__).parents[1] / "examples"
PROJECTS = sorted(path.parent for path in EXAMPLES.glob("*/dvc.yaml"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LAID = (".gitignore", "dvc.yaml", "params.yaml")
READ = {
    "data": DataSettings,
    "zoo": ZooSettings,
    "prune": PruneSettings,
    "finetune": OptimSettings,
    "eval": EvalSettings,
}


def test_these_are_the_examples() -> None:
    assert [path.name for path in PROJECTS] == ["image-folder", "restoration", "transformer"]
    assert [path.name for path in NOTEBOOKS] == ["hugging-face.ipynb", "own-model.ipynb"]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_project_is_what_its_command_lays_down(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = re.findall(r"^    metaprune (init .*)$", (project / "README.md").read_text(), re.MULTILINE)
    folder = tmp_path / project.name
    images(folder / "images")
    monkeypatch.chdir(folder)
    ran = CliRunner().invoke(app, shlex.split(command))
    assert ran.exit_code == 0, ran.output
    assert {name: (folder / name).read_text() for name in LAID} == {name: (project / name).read_text() for name in LAID}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_projects_settings_are_accepted(project: Path) -> None:
    params = project / "params.yaml"
    assert set(yaml.safe_load(params.read_text())) == {*READ, "arms"}
    for section, settings in READ.items():
        assert load_section(params, section, settings)


@pytest.fixture(scope="module")
def warm() -> Any:
    with WarmPython() as python:
        yield python


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, warm: WarmPython, tmp_path: Path) -> None:
    """Its cells one after the other, in an empty folder; each cell that shows lines still prints as many."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = [line for cell in cells for output in cell["outputs"] for line in output.get("text", ())]
    script = "\n".join("".join(cell["source"]) for cell in cells)
    (tmp_path / "cells.py").write_text(script)
    environment = {**warm.environment, "MPLBACKEND": "agg"}
    command = ("bash", "-c", "python cells.py")
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == len(shown)
