"""Code that a command line has named runs again for files beside it; nothing else that a file names ever does."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
import torch
from cli_calling import call, lay_own_code, run

from metaprune_cli.cli.signature import code_in
from metaprune_cli.config import ZooMember, ZooSettings
from metaprune_cli.config.choices import ARCHITECTURES
from metaprune_cli.models import Architecture, build
from metaprune_cli.models.packages import PACKAGES
from metaprune_cli.models.registry import GROUPS

CODE = """
from pathlib import Path

from torch import nn

Path("loaded").touch()


class Own(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Other(Own):
    pass


def score(graph, tensors):
    raise ValueError("it was called")
"""
SMALL = "model.pruned-1.5x.safetensors"
REFUSED = "importing runs its code"


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the working directory, another one for each test: what was imported stays."""
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    return lay_own_code(Path(), CODE, request.node.name)


def prune(name: str) -> None:
    """The user's word for the class, and an artifact that names it."""
    run("prune", "model.pt", "--arch", f"{name}.py:Own", "--input-shape", "4", "-s", "1.5", "-q")


def said(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_a_class_that_was_named_here_needs_no_further_leave(name: str, state_folder: Path) -> None:
    prune(name)
    run("encode", SMALL, "-q")
    run("prune", SMALL, "-s", "1.2", "-q", "-o", "smaller.safetensors")
    (note,) = state_folder.iterdir()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(state_folder.stat().st_mode) == 0o700


def test_files_below_the_folder_are_its_own_too(name: str) -> None:
    prune(name)
    Path("results").mkdir()
    shutil.move(SMALL, "results")
    run("encode", f"results/{SMALL}", "-q")


@pytest.mark.parametrize("command", [("inspect",), ("encode",), ("eval", "--dataset", "digits"), ("export",)])
def test_a_folder_of_somebody_elses_runs_nothing(
    name: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the module's name, its class and even its text those of the user's own."""
    prune(name)
    theirs = tmp_path / "downloaded"
    theirs.mkdir()
    for file in (SMALL, f"{name}.py"):
        shutil.copy(file, theirs)
    monkeypatch.chdir(theirs)
    ran = call(command[0], SMALL, *command[1:])
    assert ran.code == (0 if command == ("inspect",) else 2)
    assert REFUSED in said(ran.err) or command == ("inspect",)
    assert not Path("loaded").exists()


def test_a_file_from_elsewhere_may_not_have_code_run_that_lies_here(name: str, tmp_path: Path) -> None:
    prune(name)
    foreign = shutil.move(SMALL, tmp_path / "theirs.safetensors")
    assert REFUSED in said(call("encode", foreign).err)
    Path("link.safetensors").symlink_to(foreign)  # where the file is counts, not how it is reached
    assert REFUSED in said(call("encode", "link.safetensors").err)


def test_leave_is_for_the_name_alone_not_for_all_of_its_module(name: str, state_folder: Path) -> None:
    run("prune", "model.pt", "--arch", f"{name}:Other", "--input-shape", "4", "-s", "1.5", "-q")
    Path(SMALL).rename("other.safetensors")
    for note in state_folder.iterdir():
        note.unlink()
    prune(name)
    assert REFUSED in said(call("encode", "other.safetensors").err)


def test_code_that_has_changed_is_named_anew(name: str) -> None:
    prune(name)
    with Path(f"{name}.py").open("a") as file:
        file.write("WIDER = True\n")
    ran = call("encode", SMALL)
    assert ran.code == 2
    assert "has changed since you last named it" in said(ran.err)
    assert f"--arch {name}:Own" in said(ran.err)
    run("encode", SMALL, "--arch", f"{name}:Own", "-q")
    run("encode", SMALL, "-o", "again.safetensors", "-q")


@pytest.fixture
def opened() -> tuple[str, ...]:
    """A model of digits, and how it is opened."""
    torch.save(build(Architecture("cifar:resnet8", {"width": 0.25, "in_channels": 1})).state_dict(), "digits.pt")
    return "digits.pt", "--arch", "cifar:resnet8", "--arch-arg", "width=0.25", "--arch-arg", "in_channels=1"


CRITERION, TASK = "prune: {speedup: 1.5, criterion: 'NAME:score'}", "data: {dataset: digits, task: 'NAME:Own'}"
MEMBER = "zoo: {members: [{arch: 'cifar:resnet8'}, {arch: 'NAME:Own'}]}"


@pytest.mark.parametrize(("command", "settings"), [("prune", CRITERION), ("eval", TASK), ("zoo", MEMBER)])
def test_settings_that_nobody_named_run_nothing(
    name: str, opened: tuple[str, ...], command: str, settings: str
) -> None:
    """Those of a downloaded folder are found by themselves."""
    Path("params.yaml").write_text(settings.replace("NAME", name))
    opened = ("--dataset", "digits") if command == "zoo" else opened
    ran = call(command, *opened)
    assert ran.code == 2
    assert "params.yaml names code that would have to be imported" in said(ran.err)
    assert not Path("loaded").exists()
    call(command, *opened, "--params", "params.yaml")
    assert Path("loaded").exists()
    assert "names code" not in call(command, *opened).err  # it was asked for once, in this folder
    Path(f"{name}.py").write_text(f"{CODE}CHANGED = True\n")
    assert "has changed since you last named it" in said(call(command, *opened).err)


def test_what_dvc_runs_is_what_was_written_beside_it(
    name: str, opened: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "prune")
    Path("params.yaml").write_text(CRITERION.replace("NAME", name))
    assert "names code" not in call("prune", *opened).err
    assert Path("loaded").exists()


def test_notes_where_others_can_write_count_for_nothing(name: str, state_folder: Path) -> None:
    prune(name)
    state_folder.chmod(0o777)
    try:
        assert REFUSED in said(call("encode", SMALL).err)
    finally:
        state_folder.chmod(0o700)


def test_a_note_that_a_link_leads_to_counts_for_nothing(name: str, state_folder: Path, tmp_path: Path) -> None:
    prune(name)
    (note,) = state_folder.iterdir()
    note.rename(tmp_path / "note")
    note.symlink_to(tmp_path / "note")
    assert REFUSED in said(call("encode", SMALL).err)


def test_without_a_private_folder_nothing_is_remembered_and_nothing_fails(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    prune(name)
    assert REFUSED in said(call("encode", SMALL).err)


def test_what_is_installed_is_not_noted(name: str, state_folder: Path) -> None:
    call("prune", "model.pt", "--arch", "torch.nn:Identity", "--input-shape", "4", "-s", "1.5")
    assert not list(state_folder.iterdir())


def test_prefixes_of_known_architectures_are_no_code() -> None:
    assert set(ARCHITECTURES.known) == {*GROUPS, "torchvision", *PACKAGES}
    members = [ZooMember(name) for name in ("cifar:resnet8", "timm:resnet10t", "odd", "own.module:Net")]
    assert dict(code_in(ZooSettings(tuple(members)))) == {"members[3].arch": "own.module:Net"}
