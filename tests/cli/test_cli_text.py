"""Whatever files, arguments and people's code call things: no output takes it for more than text."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from cli_calling import TINY, call
from hostile_names import ARCH, FILE, HALF, PAYLOAD, check_file, check_raw, hostile_model, hostile_net

from metaprune_cli import save_model
from metaprune_cli.console.streams import READER_GONE, prepare
from metaprune_cli.methods.metanet.shipped import metanetwork_file
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.stages import env
from metaprune_cli.workflows.coverage import report

ROOT = Path(__file__).parents[2]
METAPRUNE = (sys.executable, "-m", "metaprune_cli")
IMPORT = "--allow-import"
DIGITS = ("--params", "{folder}/tiny.yaml")

COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "{model}"),
    "inspect --json": ("inspect", "{model}", "--json"),
    "inspect a graph": ("inspect", "{graph}", "--draw", "{out}/drawing.svg"),
    "encode": ("encode", "{model}", "-o", "{out}/{name}", IMPORT),
    "decode": ("decode", "{graph}", "-o", "{out}/{name}", IMPORT),
    "prune --dry-run": ("prune", "{model}", "--speedup", "1.5", "--dry-run", IMPORT, *DIGITS),
    "prune": ("prune", "{model}", "-o", "{out}/{name}", "--speedup", "1.5", IMPORT),
    "prune a rule": ("prune", "{model}", "-o", "{out}/{name}", "--rule", "body.*: max_ratio=0.5", IMPORT),
    "sparsify": ("sparsify", "{model}", "-o", "{out}/{name}", "--kind", "unstructured", "--sparsity", "0.5", IMPORT),
    "transform": ("transform", "{model}", "--metanet", "digits", "-o", "{out}/{name}", IMPORT),
    "finetune": ("finetune", "{model}", "-o", "{out}/{name}", IMPORT, *DIGITS),
    "sensitivity": ("sensitivity", "{model}", "-o", "{out}/{name}", "--images", "40", IMPORT, *DIGITS),
    "eval": ("eval", "{model}", "-o", "{out}/{name}", "--report", "{out}/page.html", IMPORT, *DIGITS),
    "eval --curve": ("eval", "{whole}", "{model}", "-o", "{out}/{name}", "-s", "1.5", "--curve", IMPORT, *DIGITS),
    "iterate": ("iterate", "{model}", "-o", "{out}/{name}", "-s", "1.3", "--rounds", "1", IMPORT, *DIGITS),
    "meta-train": ("meta-train", "{graph}", "--validation", "{other}", "-o", "{out}/{name}", IMPORT, *DIGITS),
    "bench": ("bench", "{model}", "--runs", "5", "--input-shape", "1,8,8", IMPORT),
    "zoo import": ("zoo", "import", "{model}", "-o", "{out}/{name}", IMPORT),
    "list": ("list", "metanets", "--folder", "{folder}"),
    "env": ("env",),
    "init": ("init", "{out}/{name}", "--model", "{model}", IMPORT, "--dataset", "digits"),
}
ERRORS: dict[str, tuple[str, ...]] = {
    "no such file": ("inspect", "{out}/{name}"),
    "no such file --debug": ("inspect", "{out}/{name}", "--debug"),
    "no such command": ("{said}",),
    "no such option": ("inspect", "--{said}"),
    "no such choice": ("eval", "{model}", "--dataset", "{said}"),
    "no number": ("prune", "{model}", "--speedup", "{said}"),
    "no such architecture": ("encode", "{model}", "--arch", "{said}"),
    "no such module": ("encode", "{model}", "--arch", "{said}:{said}"),
    "a factory that fails": ("encode", "{weights}", "--arch", "hostile_names:failing_net", "--input-shape", "1,8,8"),
    "an argument": ("encode", "{model}", "--arch", ARCH, "--arch-arg", "{said}", "--debug"),
    "no import": ("encode", "{model}"),
    "params.yaml": ("prune", "{model}", "--params", "{folder}/params.yaml"),
    "another kind": ("decode", "{model}", "-o", "{out}/{name}"),
    "a suffix": ("inspect", "{graph}", "--draw", "{out}/{name}"),
    "a rule": ("prune", "{model}", "--rule", "{said}", IMPORT),
    "a shape": ("encode", "{model}", "--input-shape", "{said}"),
    "a list": ("list", "{said}"),
    "a device": ("eval", "{model}", "--device", "{said}", *DIGITS),
    "no metanetwork": ("transform", "{model}", "--metanet", "{said}", IMPORT),
    "no export of such names": ("export", "{model}", "-f", "torch-export", "-o", "{out}", IMPORT),
    "no such path": ("export", "{model}", "-f", "safetensors", "-o", "{out}", IMPORT),
    "a target": ("prune", "{model}", "--target", "{said}", IMPORT),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile") / FILE
    place.mkdir()
    model = hostile_model(place)
    assert call("encode", model, "-o", place / "graph.safetensors", IMPORT).code == 0
    shutil.copy(place / "graph.safetensors", place / "other.graph.safetensors")
    save_model(hostile_net(), place / "whole.safetensors", arch=Architecture(ARCH, {}, (1, 8, 8)))
    sections = {**TINY, "iterate": {"epochs": 1}, "prune": {}}
    (place / "tiny.yaml").write_text(yaml.safe_dump(sections))
    (place / "params.yaml").write_text('prune: {"' + PAYLOAD.encode("unicode_escape").decode() + '": "\\e[31m"}\n')
    shutil.copy(metanetwork_file(Path("digits")), place / f"{FILE}.metanet.safetensors")
    (place / "weights.pt").write_bytes((ROOT / "README.md").read_bytes())
    return place


def filled(arguments: tuple[str, ...], folder: Path, out: Path) -> list[str]:
    words = {
        "model": folder / f"{FILE}.safetensors",
        "graph": folder / "graph.safetensors",
        "other": folder / "other.graph.safetensors",
        "whole": folder / "whole.safetensors",
        "weights": folder / "weights.pt",
        "folder": folder,
        "out": out,
        "name": FILE,
        "said": (PAYLOAD + HALF).replace("\x00", ""),
    }
    return [argument.format(**words) for argument in arguments]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_reaches_an_output_raw(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAPRUNE_NOTE", (PAYLOAD + HALF).replace("\x00", "").replace(HALF, "\udcff"))
    monkeypatch.setattr(env, "_engine", lambda: PAYLOAD)
    ran = call(*filled(COMMANDS[name], folder, tmp_path))
    assert ran.code == 0, ran.err
    check_raw(ran.out, "stdout")
    check_raw(ran.err, "stderr")
    assert "cmd|" in ran.out + ran.err
    for path in sorted(tmp_path.rglob("*")):
        check_file(path)


@pytest.mark.parametrize("name", ERRORS)
def test_no_name_reaches_an_error_raw(name: str, folder: Path, tmp_path: Path) -> None:
    ran = call(*filled(ERRORS[name], folder, tmp_path))
    assert ran.code in (2, 4), ran.err
    check_raw(ran.err, "stderr")
    check_raw(ran.out, "stdout")


def test_a_report_on_hostile_models_is_a_report(tmp_path: Path) -> None:
    said = PAYLOAD + HALF
    row = {"name": said, "status": "failed", "task": said, "step": said, "error": said, "locked_reasons": [said]}
    document = {"rows": [row], "versions": {said: said}, "command": said}
    file = tmp_path / "coverage.md"
    file.write_text(report.markdown(document), encoding="utf-8")
    check_file(file)
    assert [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")][2:] == [
        "## Reasons",
        "## Locked",
    ]


def test_logs_and_warnings_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    last = logging.lastResort
    assert last is not None
    last.handle(logging.LogRecord("metaprune_cli", logging.WARNING, "f", 1, "%s", (PAYLOAD,), None))
    said = capsys.readouterr().err
    assert said.startswith("=cmd|")
    assert len(said.splitlines()) == 1
    check_raw(said, "stderr")
    check_raw(warnings.formatwarning(PAYLOAD, UserWarning, PAYLOAD, 1), "stderr")


def shell(*command: str, **further: str) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | further
    return subprocess.run(command, env=environment, capture_output=True, timeout=120)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_poor_encoding_is_no_error(encoding: str) -> None:
    done = shell(*METAPRUNE, "inspect", "网络", PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert rb"\u7f51\u7edc" in done.stderr


@pytest.mark.parametrize("arguments", ["--help", "list", "list --json", "prune x --params no 2>&1"])
def test_a_reader_that_leaves_ends_it_quietly(arguments: str) -> None:
    command = f"({sys.executable} -m metaprune_cli {arguments}; echo $? >&3) 3>&2 | exec true"
    done = shell("bash", "-c", command)
    assert done.stderr.split() == [b"%d" % READER_GONE], done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full disk to write to")
@pytest.mark.parametrize("arguments", ["list", "list --json", "--help"])
def test_a_full_disk_is_an_input_error(arguments: str) -> None:
    done = shell("bash", "-c", f"{sys.executable} -m metaprune_cli {arguments} > /dev/full")
    assert done.returncode == 2, done.stderr
    assert b"No space left on device" in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_closed_stdout_is_no_error() -> None:
    done = shell("bash", "-c", f"{sys.executable} -m metaprune_cli list >&-")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_laid_down_pipeline_names_the_file_it_was_given(folder: Path, tmp_path: Path) -> None:
    model = folder / f"{FILE}.safetensors"
    assert call("init", tmp_path, "--model", model, IMPORT, "--dataset", "digits").code == 0
    stage = yaml.safe_load((tmp_path / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["zoo"]
    assert stage["deps"] == [str(model)]
    assert shlex.split(stage["cmd"])[2:4] == ["import", str(model)]
