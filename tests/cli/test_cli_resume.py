"""A resumed run is the run: with other images, arguments or code it starts anew, and says what differs."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cli_calling import TINY, call, run
from cli_processes import files
from PIL import Image

from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.made import Checkpoint

SETTINGS = TINY | {
    "data": {"dataset": "imagefolder", "image_size": 8, "batch_size": 8, "val_fraction": 0.25},
    "zoo": TINY["zoo"] | {"members": [{"arch": "cifar:resnet8", "arch_args": {"width": 1.0}, "count": 3}]},
    "prune": {"speedup": [1.1], "max_ratio": 0.3},
}
FACTORY = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.body = scale, nn.Linear(64, 10)

    def forward(self, x):
        return self.body(x.flatten(1) * self.scale)

def make(scale=1.0):
    return Scaled(scale)
"""


def pictures(root: Path, seed: int) -> Path:
    """Sixteen images of two classes; those of another seed have the same names."""
    generator = np.random.default_rng(seed)
    for number in range(16):
        folder = root / "train" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two sets of images, a zoo of the first, and its graphs."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(SETTINGS))
    pictures(Path("one"), 0)
    pictures(Path("two"), 9)
    run("zoo", "-o", "zoo", "--data-root", "one", "-q")
    run("encode", "zoo", "-o", "graphs", "-q")
    return tmp_path


def interrupted(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """A run that ends once it has written its first checkpoint."""
    real = Checkpoint.save

    def save_and_stop(self: Checkpoint, state: TrainState) -> None:
        real(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        assert call(*arguments).code == 130


COMMANDS: dict[str, tuple[str, ...]] = {
    "zoo": ("zoo", "-o", "{}"),
    "finetune": ("finetune", "zoo/train/resnet8-0.safetensors", "-o", "{}/tuned.safetensors"),
    "meta-train": ("meta-train", "graphs", "-o", "{}/metanet.safetensors"),
    "iterate": (
        *("iterate", "zoo/train/resnet8-0.safetensors", "-s", "1.1", "--rounds", "1", "--epochs", "1"),
        *("-o", "{}/small.safetensors"),
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_other_images_are_another_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    def by(folder: str, *further: str) -> list[str]:
        return [*(part.format(folder) for part in COMMANDS[command]), "--resume", *further]

    run(*by("two-alone", "--data-root", "two"))
    caplog.clear()
    interrupted(monkeypatch, *by("killed", "--data-root", "one"))
    run(*by("killed", "--data-root", "two"))
    assert "(inputs.data was " in caplog.text
    assert "starting from the beginning" in caplog.text
    assert files(Path("killed")) == files(Path("two-alone"))

    caplog.clear()
    run(*by("finished", "--data-root", "one"))
    before = files(Path("finished"))
    run(*by("finished", "--data-root", "two"))
    assert "making it again" in caplog.text
    assert before != files(Path("finished")) == files(Path("two-alone"))


@pytest.mark.parametrize("command", ["zoo", "finetune", "meta-train"])
def test_the_same_images_elsewhere_are_the_same_run(place: Path, command: str) -> None:
    arguments = [*(part.format("out") for part in COMMANDS[command]), "--resume", "--data-root"]
    run(*arguments, "one")
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.safetensors")}
    shutil.move("one", "moved")
    run(*arguments, "moved")
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.safetensors")} == times


def test_other_arguments_and_other_code_are_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(TINY))
    Path("factory_of_resumed.py").write_text(FACTORY)
    torch.manual_seed(0)
    torch.save({"body.weight": torch.randn(10, 64) / 8, "body.bias": torch.zeros(10)}, "net.pt")
    command = ("finetune", "net.pt", "--arch", "factory_of_resumed:make", "--input-shape", "1,8,8", "--resume")
    run(*command, "--arch-arg", "scale=2.0", "-o", "whole/net.safetensors")
    out = ("-o", "net.safetensors")
    interrupted(monkeypatch, *command, *out, "--arch-arg", "scale=3.0")
    run(*command, *out, "--arch-arg", "scale=2.0")
    assert "(architectures.model.args.scale was 3.0, is 2.0)" in caplog.text
    assert Path("net.safetensors").read_bytes() == Path("whole/net.safetensors").read_bytes()
    caplog.clear()
    Path("factory_of_resumed.py").write_text(FACTORY + "\n")
    run(*command, *out, "--arch-arg", "scale=2.0")
    assert "(inputs.code/factory_of_resumed:make was " in caplog.text


def test_meta_train_that_is_done_is_not_done_again(work: Path, tmp_path: Path) -> None:
    command = ("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", tmp_path / "net.safetensors")
    first = run(*command, "--json").json
    before = files(tmp_path)
    again = run(*command, "--json", "--resume").json
    assert again == first | {"epochs": 0}
    assert files(tmp_path) == before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that fills up: writing past ``size`` bytes of a file is an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITING: dict[str, tuple[Any, ...]] = {
    "finetune": ("finetune", "{}/m.safetensors", "-o", "{}/out/tuned.safetensors"),
    "prune": ("prune", "{}/m.safetensors", "-s", "1.1", "-o", "{}/out/small.safetensors"),
    "encode": ("encode", "{}/m.safetensors", "-o", "{}/out/graph.safetensors"),
    "export weights": ("export", "{}/m.safetensors", "-f", "safetensors", "-o", "{}/out/m.weights.safetensors"),
    "export graph": ("export", "{}/m.safetensors", "-f", "torch-export", "-o", "{}/out/m.pt2"),
    "export script": ("export", "{}/m.safetensors", "-f", "torchscript", "-o", "{}/out/m.ts.pt"),
}


@pytest.mark.parametrize("command", WRITING)
def test_a_full_disk_is_an_error_and_leaves_what_was_there(model: Path, tmp_path: Path, command: str) -> None:
    shutil.copy(model, tmp_path / "m.safetensors")
    arguments = [part.format(tmp_path) for part in WRITING[command]]
    run(*arguments, "-q")
    before = files(tmp_path)
    with files_of_at_most(6000):
        ran = call(*arguments, "-q")
    assert ran.code == 2, ran.err
    assert "could not be written" in ran.err
    assert "File too large" in ran.err
    assert files(tmp_path) == before
