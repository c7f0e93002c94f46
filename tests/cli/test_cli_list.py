"""list: what there is to choose from is what the settings, the registry and the readers know."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cli_calling import call, run
from PIL import Image
from scipy.io import savemat

from metaprune_cli.cli.list import ABOUT, COLUMNS
from metaprune_cli.config import Criterion, DatasetName, TaskName
from metaprune_cli.data.restoring import ABOUT as PHOTOGRAPHS
from metaprune_cli.data.splits import DATASETS
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.models import Architecture, build, list_architectures
from metaprune_cli.pruning.catalogue import CRITERIA
from metaprune_cli.tasks.registry import TASKS


def names(*arguments: object) -> list[str]:
    (rows,) = run("list", *arguments, "--json").json.values()
    return [row["name"] for row in rows]


def test_without_a_word_it_says_what_can_be_listed() -> None:
    assert (
        names()
        == ["archs", "criteria", "datasets", "methods", "tasks", "metanets", "pruningnets"]
        == list(ABOUT)
        == list(COLUMNS)
    )
    assert all(kind in run("list").out for kind in ABOUT)


def test_every_criterion_of_the_settings_is_in_the_table() -> None:
    assert set(CRITERIA) == set(get_args(Criterion))
    assert names("criteria") == list(get_args(Criterion))
    assert all(row["about"] and row["needs"] for row in run("list", "criteria", "--json").json["criteria"])


def test_every_dataset_of_the_settings_is_in_the_table() -> None:
    assert names("datasets") == list(get_args(DatasetName)) == [*DATASETS, *PHOTOGRAPHS]


def test_every_task_of_the_settings_is_in_the_table() -> None:
    row, *_ = run("list", "tasks", "--json").json["tasks"]
    assert names("tasks") == list(get_args(TaskName)) == list(TASKS)
    assert row["about"] == "which of several classes an input is of"
    assert (row["metrics"], row["headline"]) == (["top-1 %", "top-5 %"], "top-1, more is better")


def test_every_architecture_is_listed_with_its_figures() -> None:
    rows = {row["name"]: row for row in run("list", "archs", "--json").json["archs"]}
    assert list(rows) == list_architectures()
    assert rows["torchvision:resnet50"]["input_shape"] == [3, 224, 224]
    for name in ("torchvision:resnet18", "cifar:resnet8"):
        model = build(Architecture(name), "meta")
        assert rows[name]["params"] == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("NET50", ["torchvision:quantized_resnet50"]),
        ("cifar:resnet?", ["cifar:resnet8"]),
        ("*:vit*", ["cifar:vit"]),
        ("resnet8", ["cifar:resnet8"]),
    ],
)
def test_a_filter_is_a_part_of_a_name_or_a_pattern(pattern: str, found: list[str]) -> None:
    shown = names("archs", pattern)
    assert set(found) <= set(shown)
    assert len(shown) < 20
    assert [name for name in list_architectures() if name in shown] == shown


def images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".mat"):
            savemat(root / name, {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)})
        elif name.endswith(".jpg"):
            Image.new("RGB", (8, 8)).save(root / name)
        else:
            (root / name).touch()


@pytest.mark.parametrize(
    ("dataset", "train", "test"),
    [
        ("svhn", "svhn/train_32x32.mat", "svhn/test_32x32.mat"),
        ("imagefolder", "train/cat/1.jpg", "test/cat/1.jpg"),
        ("cifar100", "cifar-100-python/train", "cifar-100-python/test"),
    ],
)
def test_a_dataset_is_found_where_both_parts_are(tmp_path: Path, dataset: str, train: str, test: str) -> None:
    def found() -> dict[str, bool | None]:
        rows = run("list", "datasets", "--data-root", tmp_path, "--json").json["datasets"]
        return {row["name"]: row["found"] for row in rows}

    assert {name for name, there in found().items() if there and name != "photos"} == {"digits"}
    images(tmp_path, train)
    assert {name for name, there in found().items() if there and name != "photos"} == {"digits"}
    images(tmp_path, test)
    assert {name for name, there in found().items() if there and name != "photos"} == {"digits", dataset}


def test_what_was_not_looked_for_is_not_missing() -> None:
    rows = run("list", "datasets", "--json").json["datasets"]
    assert {row["found"] for row in rows if row["name"] not in ("digits", "photos")} == {None}


def test_metanetworks_of_a_folder_are_listed(tmp_path: Path) -> None:
    MetaNetwork(MetaNetworkConfig(layers=2, hidden=4, score_head=True)).save(tmp_path / "below" / "small.safetensors")
    (row,) = run("list", "metanets", "--folder", tmp_path, "--json").json["metanets"]
    assert (row["name"], row["layers"], row["hidden"], row["score_head"]) == ("small", 2, 4, True)
    assert "small" in run("list", "metanets", "SMALL", "--folder", tmp_path).out


def test_the_metanetwork_that_comes_with_the_package_is_taken_by_name(work: Path, model: Path, tmp_path: Path) -> None:
    rows = run("list", "metanets", "--json").json["metanets"]
    assert [row["name"] for row in rows] == ["builtin", "builtin-images", "digits", "digits-rank"]
    assert all(row["score_head"] for row in rows)
    row = rows[2]
    run("transform", model, "--metanet", "digits", "-o", tmp_path / "named.safetensors")
    run("transform", model, "--metanet", row["path"], "-o", tmp_path / "filed.safetensors")
    assert (tmp_path / "named.safetensors").read_bytes() == (tmp_path / "filed.safetensors").read_bytes()
    assert [MetaNetwork.load(row["name"]).config.normaliser for row in rows] == ["rank", "rank", "max", "rank"]
    ran = call("transform", model, "--metanet", "digit", "-o", tmp_path / "none.safetensors")
    assert ran.code == 2
    assert "did you mean 'digits'?" in " ".join(ran.err.replace("│", " ").split())


def test_the_builtin_one_is_taken_where_none_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model.resolve()
    (tmp_path / "builtin").mkdir()  # is no metanetwork
    monkeypatch.chdir(tmp_path)
    run("transform", model, "-o", "unnamed.safetensors")
    run("transform", model, "--metanet", "builtin", "-o", "named.safetensors")
    assert Path("unnamed.safetensors").read_bytes() == Path("named.safetensors").read_bytes()


def test_that_none_comes_with_the_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaprune_cli.methods.metanet.shipped.SHIPPED", tmp_path / "builtin")
    ran = run("list", "metanets")
    assert (ran.out, ran.err.count("No metanetwork comes with metaprune")) == ("", 1)
    assert run("list", "metanets", "--json").json == {"metanets": []}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("arhcs",), "did you mean 'archs'?"),
        (("archs", "resnt50"), "did you mean 'resnet50'?"),
        (("criteria", "tailor"), "did you mean 'taylor'?"),
        (("datasets", "zzzz"), "`metaprune list datasets` shows all of them"),
        (("datasets", "--data-root", "nowhere"), "nowhere: does not exist"),
        (("metanets", "--folder", "nowhere"), "nowhere: does not exist"),
    ],
)
def test_what_is_not_there_is_bad_input(arguments: tuple[str, ...], text: str) -> None:
    ran = call("list", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert text in " ".join(ran.err.replace("│", " ").split())
