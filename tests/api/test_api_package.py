"""The names that people import: the same under both packages, typed, and in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import metaprune
import metaprune_cli

ROOT = Path(__file__).parents[2]
CALLER = """
import metaprune as mp
import metaprune_cli
from torch import nn, zeros

model: nn.Module = nn.Linear(3, 2)
reveal_type(mp.prune(model, zeros(1, 3), search=2, keep_heads=True))
reveal_type(mp.finetune(model, mp.DataSettings()))
reveal_type(mp.evaluate(model, (zeros(1, 3), zeros(1))))
reveal_type(metaprune_cli.sparsify(model, zeros(1, 3)).zeros)
reveal_type(mp.export(model, "x.pt2", example_inputs=zeros(1, 3)))
mp.prune(model, zeros(1, 3), speed=2)
"""
SETTINGS = """
[mypy]
follow_imports = silent
ignore_missing_imports = true

# half a minute for libraries that are not what is asked about
[mypy-torch.*,torchvision.*,torch_geometric.*,sklearn.*,scipy.*,matplotlib.*,numpy.*,pydantic.*]
follow_imports = skip
"""
REVEALED = ("pruning.Pruned", "loop.FitResult", "dict[str, float]", "tuple[str, ...]", "writing.Exported")


def test_both_packages_have_the_same_names() -> None:
    assert metaprune.__version__ == metaprune_cli.__version__
    for name in metaprune_cli.__all__:
        assert getattr(metaprune, name) is getattr(metaprune_cli, name)
        assert name in dir(metaprune)
    with pytest.raises(AttributeError, match="module 'metaprune' has no attribute 'prone'"):
        metaprune.prone  # noqa: B018


def test_the_short_name_loads_no_torch() -> None:
    code = "import sys, metaprune; assert 'torch' not in sys.modules; print(metaprune.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, metaprune_cli.__version__), done.stderr


def test_the_wheel_has_both_packages_and_their_types() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = configuration["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["metaprune_cli", "metaprune"]
    assert all((ROOT / package / "py.typed").is_file() for package in packages)


def test_a_type_checker_sees_the_api_from_outside(tmp_path: Path) -> None:
    """A file that is no part of the project, checked without the project's own settings."""
    (tmp_path / "caller.py").write_text(CALLER, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "caller.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    for text in REVEALED:
        assert text in done.stdout, done.stdout + done.stderr
    (error,) = [line for line in done.stdout.splitlines() if "error:" in line]
    assert 'Unexpected keyword argument "speed" for "prune"' in error
