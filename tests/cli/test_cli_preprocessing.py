"""Preprocessing is said once, where a model is first opened; every later command knows it from the model's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cli_calling import call, run
from PIL import Image

from metaprune_cli.artifacts import read_document
from metaprune_cli.models import Architecture, build

SAID = {"mean": [0.5], "std": [0.25]}
OPTIONS = ("--mean", "0.5", "--std", "0.25")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of a small network for digits, and two files made of it: with and without its preprocessing."""
    place = tmp_path_factory.mktemp("preprocessing")
    torch.manual_seed(0)
    model = build(Architecture("cifar:resnet8", {"width": 0.25, "in_channels": 1}))
    torch.save(model.state_dict(), place / "m.pt")
    run("zoo", "import", place / "m.pt", "--input-shape", "1,8,8", *OPTIONS, "-o", place / "said")
    run("zoo", "import", place / "m.pt", "--input-shape", "1,8,8", "-o", place / "plain")
    return place


def model(folder: Path, which: str = "said") -> Path:
    return next((folder / which).rglob("m.safetensors"))


def said(path: Path) -> object:
    return read_document(path).get("preprocessing")


def test_it_is_part_of_what_is_made_of_the_model(folder: Path, tmp_path: Path) -> None:
    assert said(model(folder)) == SAID
    assert said(model(folder, "plain")) is None
    params = tmp_path / "params.yaml"
    params.write_text("data: {train_limit: 120, batch_size: 40}\n")
    run("prune", model(folder), "-s", "1.5", "-o", tmp_path / "small.safetensors")
    run(
        "finetune",
        tmp_path / "small.safetensors",
        "--epochs",
        "1",
        "--params",
        params,
        "-o",
        tmp_path / "f.safetensors",
    )
    run("encode", tmp_path / "f.safetensors", "-o", tmp_path / "g.safetensors")
    run("decode", tmp_path / "g.safetensors", "-o", tmp_path / "d.safetensors")
    assert {str(said(tmp_path / f"{name}.safetensors")) for name in ("small", "f", "g", "d")} == {str(SAID)}
    made_by = read_document(tmp_path / "f.safetensors")["made_by"]
    assert made_by["parameters"]["data"]["preprocessing"]["mean"] == [0.5]


def test_inspect_and_eval_show_it(folder: Path) -> None:
    shown = run("inspect", model(folder)).out
    assert "preprocessing: mean" in shown
    assert "as the data set has it" in run("inspect", model(folder, "plain")).out
    assert "Preprocessing: 1x8x8, mean 0.5, std 0.25\n" in run("eval", model(folder)).err
    assert (
        "Preprocessing: 1x8x8, mean 0.3053, std 0.376 (the figures of digits)"
        in run("eval", model(folder, "plain")).err
    )


def test_eval_measures_each_model_on_its_own_images_and_says_so(folder: Path) -> None:
    ran = run("eval", model(folder), model(folder, "plain"), "--json")
    alone = run("eval", model(folder), "--json").json["models"][0]
    one, other = ran.json["models"]
    assert one["loss"] == alone["loss"] != other["loss"]
    assert ran.json["setting"]["Preprocessing"].startswith("different. ")
    assert "mean 0.5, std 0.25; " in ran.json["setting"]["Preprocessing"]
    same = run("eval", model(folder), model(folder, "plain"), *OPTIONS, "--json").json
    assert same["models"][1]["loss"] == alone["loss"]


def test_commands_that_read_images_once_refuse_models_that_take_others(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(model(folder, "plain").read_bytes())
    both = model(folder), other
    ran = call("finetune", *both, "--epochs", "1", "-o", tmp_path / "out")
    assert ran.code == 2
    shown = "".join(ran.err.replace("│", "").split())
    assert "takeimagesindifferentways" in shown
    assert "safetensors:asthedatasethasthem" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        ("--mean", "123.7,116,104"),
        ("--mean", "a,b"),
        ("--std", "0"),
        ("--image-size", "0"),
        ("--crop", "0.1"),
        ("--interpolation", "best"),
        ("--channels", "cmyk"),
        ("--preprocessing", "resnet18"),
    ],
)
def test_values_that_cannot_be_are_bad_input(wrong: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    ran = call("encode", folder / "m.pt", *wrong, "-o", tmp_path / "g")
    assert ran.code == 2
    assert "Bad input" in ran.err


def test_images_of_a_folder_get_the_size_that_the_model_states(folder: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in map(str, range(10)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((20, 20, 3), 25 * int(name), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    torch.save(build(Architecture("cifar:resnet8", {"width": 0.25})).state_dict(), tmp_path / "m.pt")
    data = ("--dataset", "imagefolder", "--data-root", tmp_path)
    shape = "Preprocessing: 3x{0}x{0}, "
    assert shape.format(20) in run("eval", tmp_path / "m.pt", *data).err
    run("zoo", "import", tmp_path / "m.pt", "--image-size", "12", "-o", tmp_path / "zoo")
    made = next((tmp_path / "zoo").rglob("m.safetensors"))
    assert read_document(made)["architecture"]["input_shape"] == [3, 12, 12]
    assert shape.format(12) in run("eval", made, *data).err
