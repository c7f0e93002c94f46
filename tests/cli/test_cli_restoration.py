"""Super-resolution and denoising through the commands: trained, pruned, repaired, finetuned, measured with pictures."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_calling import call, run
from photograph_files import fill
from PIL import Image

from metaprune_cli.artifacts import read_document

TASKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "denoising": ("dncnn", {"depth": 4, "width": 6, "norm": True}, {"sigma": 40.0}),
    "super-resolution": ("edsr", {"blocks": 1, "width": 6, "long_skip": "bicubic"}, {"scale": 3}),
}
DENOISING = pytest.mark.parametrize("made", ["denoising"], indirect=True)


def params(task: str, root: Path) -> dict[str, Any]:
    arch, args, said = TASKS[task]
    return {
        "data": {
            "task": task,
            "dataset": "images",
            "data_root": str(root),
            "image_size": 16,
            "augment": "crop-flip",
            "batch_size": 8,
            "restoration": {**said, "patches": 16},
        },
        "zoo": {
            "members": [{"arch": f"restore:{arch}", "arch_args": args, "count": 2, "heldout": 1}],
            "validation": 1,
            "train": {"epochs": 1, "optimizer": "adamw", "lr": 0.001},
        },
        "metanet": {"layers": 1, "hidden": 4},
        "meta-train": {"epochs": 1, "batches": 1, "batch_size": 4, "validate_every": 1},
        "prune": {"speedup": [2], "repair": "least-squares", "repair_images": 8},
        "finetune": {"epochs": 1, "optimizer": "adamw", "lr": 0.001},
        "eval": {"latency_runs": 2},
    }


@pytest.fixture(scope="module", params=TASKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The task, and a folder in which the whole pipeline has run."""
    task, before, folder = request.param, Path.cwd(), tmp_path_factory.mktemp("restoration")
    os.chdir(folder)
    try:
        fill(folder / "photographs" / "train", 3, size=(48, 56))
        fill(folder / "photographs" / "Set5" / "HR", 2, size=(48, 53), start=3)
        fill(folder / "photographs" / "Set14", 1, size=(50, 48), start=5)
        Path("params.yaml").write_text(yaml.safe_dump(params(task, folder / "photographs")))
        run("zoo", "-o", "zoo")
        run("encode", "zoo/train", "zoo/validation", "-o", "graphs")
        run("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", "metanet.safetensors")
        run("transform", "zoo/heldout", "--metanet", "metanet.safetensors", "-o", "transformed")
        run("prune", "zoo/heldout", "-o", "pruned/uniform")
        run("prune", "transformed", "--scope", "global", "-o", "pruned/meta")
        run("finetune", "pruned/uniform", "pruned/meta", "-o", "finetuned")
        every = ("zoo/heldout", "transformed", "pruned", "finetuned")
        run("eval", *every, "--base", "zoo/heldout", "-o", "report", "--report", "report.html")
    finally:
        os.chdir(before)
    return task, folder


@pytest.fixture
def here(made: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The task; its folder is the working directory."""
    monkeypatch.chdir(made[1])
    return made[0]


def test_a_metanetwork_reads_what_the_images_show(here: str, tmp_path: Path) -> None:
    settings = yaml.safe_load(Path("params.yaml").read_text())
    settings["metanet"]["evidence"] = True
    (tmp_path / "reading.yaml").write_text(yaml.safe_dump(settings))
    given = ("--params", tmp_path / "reading.yaml")
    run("encode", "zoo/train", "zoo/validation", "--observe", 8, "-o", tmp_path / "graphs")
    run("meta-train", tmp_path / "graphs", *given, "-o", tmp_path / "reading.safetensors")
    run("transform", "zoo/heldout", "--metanet", tmp_path / "reading.safetensors", "-o", tmp_path / "transformed")
    (transformed,) = (tmp_path / "transformed").rglob("*.safetensors")
    assert read_document(transformed)["lineage"][-1]["observed"]


def test_every_model_says_what_it_restores(here: str) -> None:
    said = TASKS[here][2] | {"pixels": "gray" if here == "denoising" else "rgb"}
    written = [path for folder in ("zoo", "graphs", "pruned") for path in Path(folder).rglob("*.safetensors")]
    assert len(written) == 7
    for path in written:
        assert read_document(path)["restoration"] == said
        assert read_document(path)["task"] == here


def test_the_report_has_each_test_sets_figures_and_macs_for_a_screen(here: str) -> None:
    with Path("report/models.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"psnr", "ssim", "psnr_Set14", "ssim_Set14", "macs", "macs_1280x720"} <= rows[0].keys()
    assert {row["arm"] for row in rows} >= {"plain", "uniform", "metanet"}
    whole = next(row for row in rows if row["step"] == "unpruned")
    assert 10 < float(whole["psnr"]) < 60
    assert int(whole["macs_1280x720"]) > 50 * int(whole["macs"])
    report = Path("report/report.md").read_text()
    assert "the 2 test images of Set5 and the 1 test image of Set14" in report
    assert ("sigma 40 of 255" if here == "denoising" else "a border of 3 pixels left out") in report


def test_the_page_shows_pictures_before_and_after(here: str) -> None:
    page = Path("report.html").read_text()
    assert "img-src data:" in page
    titles = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]+)"', page)
    expected = ["input", "target", "original model", "metanet, unpruned", "uniform 2.00x", "metanet 2.00x"]
    assert sorted(titles) == sorted(2 * expected)
    assert len(re.findall(r"<span>PSNR \d+\.\d\d dB</span>", page)) == 10
    for source in re.findall(r"base64,([^\"]+)", page):
        picture = Image.open(io.BytesIO(base64.b64decode(source)))
        assert (picture.mode, picture.size) == ("L" if here == "denoising" else "RGB", (48, 48))


def test_a_files_settings_hold_where_nothing_else_is_said(here: str, tmp_path: Path) -> None:
    bare = {"data": {"dataset": "images", "data_root": "photographs"}}
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(bare))
    with Path("report/models.csv").open() as file:
        expected = next(row for row in csv.DictReader(file) if row["step"] == "unpruned")
    (model,) = Path("zoo/heldout").iterdir()
    arguments = (model, "--params", tmp_path / "bare.yaml", "--json", "--latency-runs", 2)
    (row,) = run("eval", *arguments).json["models"]
    assert row["psnr"] == pytest.approx(float(expected["psnr"]))
    if here == "denoising":
        (other,) = run("eval", *arguments, "--sigma", 10, "--test-set", "Set5").json["models"]
        assert other["psnr"] > row["psnr"]
        assert "psnr_Set14" not in other
    else:
        wrong = call("eval", *arguments, "--scale", 2)
        assert (wrong.code, "makes images 3 times larger" in wrong.err) == (2, True)


def test_a_folder_of_test_images_alone_is_enough_to_measure(here: str, tmp_path: Path) -> None:
    fill(tmp_path / "Set5" / "HR", 1, size=(48, 48))
    found = run("eval", "finetuned", "--data-root", tmp_path, "--json").json["models"]
    assert len(found) == 2
    assert found[0]["samples"] == 1


@DENOISING
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pixels", "rgb", "--task", "denoising"), "different shapes"),
        (("--test-set", "Set6"), "There are no test images"),
        (("--dataset", "digits"), "digits are not for the task"),
        (("--task", "classification"), "for another task"),
        (("--sigma", "0"), "above 0"),
        (("--scale", "9"), "at most 8"),
        (("--pixels", "blue"), "'gray', 'rgb'"),
    ],
)
def test_what_does_not_fit_is_refused(here: str, arguments: tuple[str, ...], message: str) -> None:
    ran = call("eval", "zoo/heldout", *arguments)
    assert ran.code == 2
    assert message in " ".join(ran.err.replace("│", " ").split())


@DENOISING
def test_models_for_different_noise_are_not_measured_together(here: str) -> None:
    other = ("--sigma", "20", "--epochs", "1", "-o", "other.safetensors")
    run("finetune", "zoo/heldout/dncnn-2.safetensors", *other)
    Path("plain.yaml").write_text(yaml.safe_dump({"data": {"dataset": "images", "data_root": "photographs"}}))
    both = ("zoo/heldout", "other.safetensors", "--params", "plain.yaml")
    ran = call("eval", *both)
    assert ran.code == 2
    assert "different sigma" in ran.err
    assert run("eval", *both, "--sigma", 30, "--json").json["setting"]["Noise"].startswith("Gaussian, sigma 30")


@DENOISING
def test_a_pipeline_is_laid_down_for_what_the_model_restores(here: str) -> None:
    (model,) = Path("zoo/heldout").iterdir()
    images = ("--task", "denoising", "--dataset", "images", "--data-root", "photographs")
    run("init", "project", "--model", model, *images)
    written = yaml.safe_load(Path("project/params.yaml").read_text())
    assert written["data"]["restoration"] == {"sigma": 40.0, "pixels": "gray"}
    assert (written["data"]["augment"], written["finetune"]["optimizer"]) == ("crop-flip", "adamw")
    ran = call("init", "other", "--task", "denoising", "--arch", "restore:dncnn")
    assert (ran.code, "digits are not for the task denoising" in ran.err) == (2, True)
