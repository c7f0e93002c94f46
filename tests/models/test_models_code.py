"""The digest of a user's source: of a module its file, of a package all of it; found without running anything."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from metaprune_cli.artifacts import read_artifact
from metaprune_cli.models import save_model
from metaprune_cli.models.importing import code_digest, import_named

RAISES = "raise RuntimeError('it was run')\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one_module.py", "other_module.py", "a_package/__init__.py", "a_package/deep/net.py", "space/net.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(RAISES + f"# {name}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file", "other"),
    [
        ("one_module:make", "one_module.py", "other_module.py"),
        ("a_package:make", "a_package/deep/net.py", "one_module.py"),
        ("a_package.deep.net:Net.make", "a_package/__init__.py", "one_module.py"),
        ("space.net:make", "space/net.py", "one_module.py"),
    ],
)
def test_only_its_own_source_counts(folder: Path, tmp_path: Path, name: str, file: str, other: str) -> None:
    before = code_digest(name)
    assert before is not None
    (folder / other).write_text("changed = True")
    assert code_digest(name) == before
    shutil.copytree(folder, folder / "elsewhere")
    assert code_digest(name, folder / "elsewhere") == before
    (folder / file).write_text("changed = True")
    assert code_digest(name) != before


@pytest.mark.parametrize("name", ["nowhere_at_all:make", "sys:exit", "one_module.inner:make"])
def test_where_there_is_no_source_there_is_no_digest(tmp_path: Path, name: str) -> None:
    assert code_digest(name, tmp_path) is None


def test_a_factory_finds_when_called_what_it_found_when_imported(folder: Path) -> None:
    (folder / "vendored").mkdir()
    (folder / "vendored" / "lib_of_others.py").write_text("VALUE = 1")
    (folder / "beside_the_factory.py").write_text("VALUE = 2")
    (folder / "json.py").write_text(RAISES)  # must not hide what is installed
    (folder / "late_factory.py").write_text(
        "import sys\n"
        "sys.path.insert(0, 'vendored')\n"
        "def make():\n"
        "    import beside_the_factory, lib_of_others\n"
        "    return lib_of_others.VALUE + beside_the_factory.VALUE\n"
    )
    for _ in range(2):
        assert import_named("late_factory:make", "factory", where="--arch")() == 3
    assert "vendored" in sys.path
    assert sys.path.count(str(folder)) == 1
    assert sys.path[-1] == str(folder)


def test_a_model_is_saved_with_the_file_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code_of_mine.py").write_text(
        "from torch import nn\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(3, 2)\n"
    )
    model = import_named("code_of_mine:Net", "model", where="arch")()
    save_model(model, "net.safetensors", arch="code_of_mine.py:Net")
    assert read_artifact(Path("net.safetensors"), "model").document["architecture"]["name"] == "code_of_mine:Net"
