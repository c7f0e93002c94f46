"""``finetune`` with a teacher and early stopping: whose outputs, what the files say, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from cli_calling import call, run

from metaprune_cli.artifacts import file_sha256, read_document
from metaprune_cli.models import Architecture, build, save_model


def said(text: str) -> str:
    """What a panel says, in one line."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="module")
def small(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two prunings of the held-out model, under names that say nothing of it."""
    folder = tmp_path_factory.mktemp("small")
    run("prune", pipeline / "zoo" / "heldout", "-s", "1.5", "-s", "2", "-o", folder)
    for name, path in zip("ab", sorted(folder.iterdir()), strict=True):
        path.rename(folder / f"{name}.safetensors")
    return folder


def test_in_a_folder_of_teachers_each_model_has_its_own_base(small: Path, model: Path, tmp_path: Path) -> None:
    teachers = tmp_path / "teachers"
    shutil.copytree(model.parent.parent / "train", teachers)
    shutil.copy(model, teachers)
    run("finetune", small, "--teacher", teachers, "--ema", "0.9", "-o", tmp_path / "out")
    for name in "ab":
        document = read_document(tmp_path / "out" / f"{name}.finetuned.safetensors")
        assert document["inputs"]["teacher"] == file_sha256(model)
        step = document["lineage"][-1]
        assert (step["teacher"], step["ema"]) == (model.name, 0.9)
        assert "mixup" not in step


def test_one_teacher_is_for_all(small: Path, work: Path, tmp_path: Path) -> None:
    teacher = Path("zoo/train/resnet8-0.safetensors")
    run("finetune", small, "--teacher", teacher, "-o", tmp_path / "out")
    documents = [read_document(path) for path in sorted((tmp_path / "out").iterdir())]
    assert [document["inputs"]["teacher"] for document in documents] == [file_sha256(teacher)] * 2


def test_a_teacher_may_be_of_another_architecture_than_a_foreign_model(work: Path, tmp_path: Path) -> None:
    small, large = (
        Architecture(f"cifar:{name}", {"width": 0.25, "in_channels": 1}, (1, 8, 8)) for name in ("resnet8", "resnet14")
    )
    torch.save(build(small).state_dict(), tmp_path / "small.pt")
    save_model(build(large), tmp_path / "large.safetensors", arch=large)
    told = ("--arch", "cifar:resnet8", "--input-shape", "1,8,8", "--epochs", "1")
    run("finetune", tmp_path / "small.pt", "--teacher", tmp_path / "large.safetensors", *told)
    document = read_document(tmp_path / "small.finetuned.safetensors")
    assert document["lineage"] == [
        {"command": "finetune", "input": "small.pt", "epochs": 1, "seed": 0, "recalibrated": False}
        | {"teacher": "large.safetensors"}
    ]


def test_models_without_a_teacher_are_named(small: Path, work: Path, tmp_path: Path) -> None:
    ran = call("finetune", small, "--teacher", "zoo/train", "-o", tmp_path / "out")
    assert ran.code == 2
    assert "Some models have no teacher in the folder" in said(ran.err)
    assert "a.safetensors" in ran.err
    assert "b.safetensors" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "shape", "text"),
    [
        ({"num_classes": 7, "in_channels": 1}, (1, 8, 8), "different numbers of classes"),
        ({"in_channels": 3}, (3, 8, 8), "different shapes"),
    ],
)
def test_a_teacher_of_something_else_is_refused(
    model: Path, tmp_path: Path, arguments: dict[str, int], shape: tuple[int, ...], text: str
) -> None:
    architecture = Architecture("cifar:resnet8", {"width": 0.25, **arguments}, shape)
    save_model(build(architecture), tmp_path / "other.safetensors", arch=architecture)
    ran = call("finetune", model, "--teacher", tmp_path / "other.safetensors", "-o", tmp_path / "out.safetensors")
    assert ran.code == 2
    assert text in said(ran.err)
    assert "other.safetensors" in ran.err


def test_with_patience_the_best_epoch_is_told_and_kept(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    command = ("finetune", model, "--epochs", "9", "--lr", "3", "--patience", "1", "-o", out)
    shown = run(*command, "--json").json["models"][0]
    document = read_document(out)
    losses = [record["val_loss"] for record in document["history"]]
    assert shown["epochs"] == len(losses) == shown["best_epoch"] + 1
    assert shown["best_epoch"] == losses.index(min(losses)) + 1 == document["lineage"][-1]["best_epoch"]
    assert shown["val_loss"] == min(losses)
    again = run(*command, "--json", "--resume").json["models"][0]
    assert again == shown | {"epochs": 0}
    assert "Of epoch" in run(*command).out
