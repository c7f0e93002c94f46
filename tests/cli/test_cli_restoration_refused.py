"""Images, scales and targets that do not fit a restoring network, from the command line: refused in its own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_calling import Ran, call
from photograph_files import fill

from metaprune_cli.models import Architecture, build, save_model

DENOISE = ("--task", "denoising")
ENLARGE = ("--task", "super-resolution")
THRICE = ("--scale", "3", "--image-size", "24")
BRIEF = ("--speedup", "1.5", "--epochs", "1", "-o", "out/small.safetensors")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "gray": ("dncnn", {"depth": 3, "width": 6, "in_channels": 1}),
    "colour": ("dncnn", {"depth": 3, "width": 6, "in_channels": 3}),
    "twice": ("edsr", {"blocks": 1, "width": 6, "in_channels": 3, "scale": 2}),
}
OWN = """
import torch
from torch import nn

class Halving(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 4, 4)
        self.out = nn.Conv2d(5, 1, 3, padding=1)
    def forward(self, x):
        small = nn.functional.max_pool2d(self.down(x).relu(), 4)
        return self.out(torch.cat([x, self.up(small)], 1))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks with new weights, and folders of images."""
    root = tmp_path_factory.mktemp("refused")
    for name, (arch, args) in NETWORKS.items():
        architecture = Architecture(f"restore:{arch}", args)
        save_model(build(architecture), root / f"{name}.safetensors", arch=architecture)
    (root / "halving.py").write_text(OWN)
    states = {"down.weight": (4, 1, 3, 3), "down.bias": (4,), "up.weight": (4, 4, 4, 4), "up.bias": (4,)}
    states |= {"out.weight": (1, 5, 3, 3), "out.bias": (1,)}
    torch.save({name: torch.zeros(shape) for name, shape in states.items()}, root / "own.pt")
    for name, channels in (("grays", 1), ("colours", 3), ("pairs", 3)):
        fill(root / name / "train", 3, size=(96, 104), channels=channels)
        fill(root / name / "Set5" / "HR", 2, size=(97, 101), channels=channels)
    fill(root / "pairs" / "Set5" / "LR_bicubic" / "X2", 2, size=(40, 48))
    fill(root / "untested" / "train", 3, size=(96, 104))
    settings = {"data": {"batch_size": 4, "restoration": {"patches": 8}}, "eval": {"latency_runs": 2}}
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    return root


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[Ran, str]:
    monkeypatch.chdir(folder)
    ran = call(*arguments, "--dataset", "images", "-q")
    return ran, " ".join(ran.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(
            ("eval", "colour.safetensors", *DENOISE, "--data-root", "grays"),
            2,
            "got 1x48x48 where colour.safetensors next step --pixels rgb",
            id="gray images, a colour network",
        ),
        pytest.param(
            ("finetune", "colour.safetensors", *DENOISE, "--pixels", "rgb", "--data-root", "grays"),
            2,
            "The images are gray, but colour images are needed.",
            id="gray images as colours",
        ),
        pytest.param(
            ("dhp", "twice.safetensors", *ENLARGE, "--data-root", "grays", *BRIEF),
            2,
            "such as 00.png where grays/train next step --pixels gray",
            id="gray images to enlarge",
        ),
        pytest.param(
            ("prune", "gray.safetensors", *DENOISE, "--pixels", "rgb", "--data-root", "colours", *BRIEF[:2]),
            2,
            "next step --pixels gray",
            id="colours, a gray network",
        ),
        pytest.param(
            ("eval", "own.pt", "--arch", "halving.py:Halving", *DENOISE, "--data-root", "grays"),
            2,
            "cannot take images of 101x97 pixels. expected sides that are multiples of 4",
            id="odd sizes",
        ),
        pytest.param(
            ("eval", "twice.safetensors", *ENLARGE, "--data-root", "pairs"),
            2,
            "do not match. expected sides 2 times those of the low-resolution version",
            id="pairs that do not match",
        ),
        pytest.param(
            ("dhp", "twice.safetensors", *ENLARGE, *THRICE, "--data-root", "colours", *BRIEF),
            2,
            "makes images 2 times larger. expected 3 times",
            id="another scale",
        ),
        pytest.param(
            ("dhp", "--arch", "restore:dncnn", *ENLARGE, "--data-root", "colours", *BRIEF),
            2,
            "leaves images as small as they are.",
            id="no scale at all",
        ),
        pytest.param(
            ("eval", "gray.safetensors", *DENOISE, "--data-root", "untested"),
            2,
            "Kodak24, McMaster, test: NAME/*.png or NAME/HR/*.png, with NAME/LR_bicubic/X2/*.png or without got train",
            id="no test sets",
        ),
        pytest.param(
            ("eval", "gray.safetensors", *DENOISE, "--data-root", "grays", "--test-set", "BSD68"),
            2,
            "expected images in BSD68: NAME/*.png",
            id="one test set missing",
        ),
        pytest.param(
            ("dhp", "gray.safetensors", *DENOISE, "--data-root", "grays", "--shrink", "threshold", *BRIEF),
            3,
            "A speed-up of 1.5× was not reached within 2 steps. expected 1.5× got 1×",
            id="a target that is not reached",
        ),
        pytest.param(
            ("dhp", "gray.safetensors", *DENOISE, "--data-root", "grays", *BRIEF[2:], "--speedup", "99"),
            3,
            "A speed-up of 99× cannot be met. expected at most",
            id="a target out of reach",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_its_own_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran, said = refused(folder, monkeypatch, *arguments)
    assert words in said, said
    assert ran.code == code
    assert ".safetensors.safetensors" not in said
    assert not (folder / "out" / "small.safetensors").exists()


def test_odd_sizes_are_padded_as_the_refusal_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ("eval", "own.pt", "--arch", "halving.py:Halving", *DENOISE, "--data-root", "grays")
    ran, _ = refused(folder, monkeypatch, *own, "--multiple", "4")
    assert ran.code == 0, ran.err
