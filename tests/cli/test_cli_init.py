"""init: what it lays down runs, and it destroys nothing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_calling import call, run

from metaprune_cli.config_loader import SECTIONS
from metaprune_cli.models import Architecture, build, load_model

LAID = ["README.md", ".gitignore", "dvc.yaml", "params.yaml"]
SHAPE = ("--arch", "cifar:resnet8", "--arch-arg", "image_size=8")


def stages(folder: Path) -> Iterator[dict[str, Any]]:
    """The stages as DVC sees them: ``foreach`` taken apart, what is in ``${}`` put in."""
    arms = yaml.safe_load((folder / "params.yaml").read_text())["arms"]
    for body in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].values():
        if "foreach" not in body:
            yield body
            continue
        assert body["foreach"] == "${arms}"
        for key, item in arms.items():
            values = {"key": key} | {f"item.{name}": value for name, value in item.items()}
            text = re.sub(r"\$\{([a-z.]+)\}", lambda found, values=values: values[found[1]], json.dumps(body["do"]))
            yield json.loads(text)


def with_tiny_settings(folder: Path) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["data"] |= {"train_limit": 120, "batch_size": 40}
    params["finetune"]["epochs"] = 1
    params["prune"]["speedup"] = [1.5]
    params["eval"]["latency_runs"] = 2
    params["arms"].pop("uniform")
    if "train" in params["zoo"]:
        params["zoo"]["train"]["epochs"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def test_a_model_of_ones_own_goes_all_the_way(work: Path, model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    own, folder = tmp_path / "my ${model}: it's.pt", tmp_path / "p"
    torch.save({"state_dict": load_model(model).state_dict()}, own)
    run("init", folder, "--model", own, *SHAPE, "--metanet", "metanet.safetensors")
    with_tiny_settings(folder)
    monkeypatch.chdir(folder)
    for body in stages(folder):
        words = shlex.split(body["cmd"].replace(r"\${", "${"))
        assert words[0] == "metaprune"
        missing = [path for path in body["deps"] if not (folder / path.replace(r"\${", "${")).exists()]
        assert missing == []
        assert set(body["params"]) <= set(SECTIONS)
        run(*words[1:], "--quiet")
        assert all((folder / path).exists() for path in body["outs"])
    figures = json.loads((folder / "data/report/metrics.json").read_text())
    assert {"unpruned", "plain", "metanet", "metanet_minus_plain"} <= set(figures)
    assert "<h1>Evaluation</h1>" in (folder / "data/report/report.html").read_text()


def test_without_a_model_one_is_trained_first(tmp_path: Path, monkeypatch: Any) -> None:
    assert run("init", tmp_path, "--json").json == {"folder": str(tmp_path), "written": LAID, "kept": []}
    with_tiny_settings(tmp_path)
    monkeypatch.chdir(tmp_path)
    first = next(stages(tmp_path))
    run(*shlex.split(first["cmd"])[1:], "--quiet")
    assert len(list(Path("data/zoo/train").iterdir())) == 1
    run("prune", "data/zoo/train", "--dry-run", "--quiet")


def test_a_task_of_ones_own_goes_all_the_way(tmp_path: Path, monkeypatch: Any) -> None:
    """Its data are its own, its metrics the report's, and no command after `init` has to name it."""
    shutil.copy(Path(__file__).parents[1] / "tasks" / "own.py", tmp_path / "inittask.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    run("init", ".", "--arch", "inittask:Net", "--task", "inittask:Denoising", "--allow-import")
    assert "for `inittask:Denoising`" in Path("README.md").read_text()
    with_tiny_settings(tmp_path)
    for body in stages(tmp_path):
        run(*shlex.split(body["cmd"])[1:], "--quiet")
        assert "task" in yaml.safe_load(Path("params.yaml").read_text())["data"]
    figures = json.loads(Path("data/report/metrics.json").read_text())
    assert set(figures["plain"]) == {"1.5x"}


def test_a_task_has_to_be_found_from_the_folder(tmp_path: Path, monkeypatch: Any) -> None:
    own = Path(__file__).parents[1] / "tasks" / "own.py"
    (tmp_path / "p").mkdir()
    for copy in (tmp_path / "net_of_init.py", tmp_path / "p" / "net_of_init.py", tmp_path / "task_only_here.py"):
        shutil.copy(own, copy)
    monkeypatch.chdir(tmp_path)
    task = ("--task", "task_only_here:Denoising", "--allow-import")
    ran = call("init", "p", "--arch", "net_of_init:Net", *task)
    assert ran.code == 2
    assert "would not find the module 'task_only_here' that makes the task" in " ".join(ran.err.split())
    assert not Path("p/dvc.yaml").exists()


def test_images_of_another_size(tmp_path: Path) -> None:
    """Of digits, which are 8x8: without the option the model would not fit them."""
    own, folder = tmp_path / "own.pt", tmp_path / "p"
    torch.save(build(Architecture("cifar:vit", {"in_channels": 1, "image_size": 16})).state_dict(), own)
    shape = ("--arch", "cifar:vit", "--arch-arg", "image_size=16")
    assert call("init", folder, "--model", own, *shape).code == 2
    run("init", folder, "--model", own, *shape, "--image-size", "16")
    assert yaml.safe_load((folder / "params.yaml").read_text())["data"]["image_size"] == 16


def test_paths_inside_are_relative_and_others_absolute(work: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    shutil.copy(model, folder / "net.safetensors")
    run("init", folder, "--model", folder / "net.safetensors", "--metanet", work / "metanet.safetensors")
    zoo, transform, *_ = stages(folder)
    assert zoo["deps"] == ["net.safetensors"]
    assert zoo["cmd"] == "metaprune zoo import net.safetensors -o data/zoo"
    assert transform["deps"] == ["data/zoo", str((work / "metanet.safetensors").resolve())]


def test_a_factory_has_to_be_found_from_the_folder(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "here_only.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    ran = call("init", "p", "--arch", "here_only:net", "--allow-import")
    assert ran.code == 2
    assert "would not find the module 'here_only'" in ran.err
    assert not Path("p").exists()
    assert run("init", ".", "--arch", "here_only:net", "--allow-import").code == 0
    assert all("--allow-import" in body["cmd"] for body in stages(tmp_path) if " zoo " not in body["cmd"])


def test_what_is_there_stays_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert run("init", tmp_path, "--json").json["kept"] == ["README.md"]
    (tmp_path / "params.yaml").write_text("mine")
    ran = call("init", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "dvc.yaml, params.yaml" in ran.err
    assert (tmp_path / "params.yaml").read_text() == "mine"
    run("init", tmp_path, "--force")
    assert (tmp_path / "params.yaml").read_text() != "mine"
    assert (tmp_path / "README.md").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(LAID)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: Any) -> None:
    written = Path.write_text

    def full(self: Path, *arguments: Any, **named: Any) -> int:
        if self.name == "params.yaml":
            raise OSError(28, "No space left on device", str(self))
        return written(self, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", full)
    assert "make room on the disk" in call("init", tmp_path).err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--model", "missing.pt"), 2, "missing.pt"),
        (("--arch", "cifar:resnet9"), 2, "did you mean"),
        (("--dataset", "cifar10", "--data-root", "{tmp}"), 2, "No CIFAR-10 images were found"),
        (("--dataset", "cifar10"), 2, "--data-root DIR"),
        (("--metanet", "missing.safetensors"), 2, "There is no such metanetwork"),
        (("--metanet", "{model}"), 4, "kind metanetwork"),
        (("--model", "{model}", "--dataset", "svhn", "--data-root", "{tmp}"), 2, "No SVHN images"),
    ],
)
def test_what_could_not_run_is_not_laid_down(
    work: Path, model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    ran = call("init", tmp_path / "p", *(word.format(tmp=tmp_path, model=model) for word in arguments))
    assert (ran.code, ran.out) == (code, "")
    assert text in " ".join(ran.err.replace("│", " ").split())
    assert not (tmp_path / "p").exists()


def test_a_model_that_does_not_fit_the_images_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "seven.pt"
    torch.save(build(Architecture("cifar:resnet8", {"num_classes": 7, "in_channels": 1})).state_dict(), own)
    ran = call("init", tmp_path / "p", "--model", own, *SHAPE)
    assert ran.code == 2
    assert "10 classes" in ran.err


def test_sections_of_the_users_own_resemble_none_of_ours(tmp_path: Path) -> None:
    run("init", tmp_path)
    own = set(yaml.safe_load((tmp_path / "params.yaml").read_text())) - set(SECTIONS)
    assert own == {"arms"}
