"""A task of a user's own through the commands: nests of tensors, an error that is better the smaller it is."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from cli_calling import call, run

from metaprune_cli.artifacts import read_document

OWN = Path(__file__).parents[1] / "tasks" / "own.py"
TASK, ARCH = ("--task", "mytask:Denoising"), ("--arch", "mytask:Net")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task's module and a model that was trained for it."""
    import os
    import sys

    folder, before = tmp_path_factory.mktemp("own"), Path.cwd()
    shutil.copy(OWN, folder / "mytask.py")
    os.chdir(folder)
    try:
        sys.path.insert(0, str(folder))
        import mytask  # type: ignore[import-not-found]

        torch.manual_seed(0)
        torch.save(mytask.Net().state_dict(), "net.pt")
        length = ("--epochs", "8", "--lr", "0.02", "--optimizer", "adamw")
        run("finetune", "net.pt", *ARCH, *TASK, *length, "-o", "model.safetensors")
    finally:
        sys.path.remove(str(folder))
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def test_the_file_says_what_it_is_for_and_its_headline(here: Path) -> None:
    document = read_document("model.safetensors")
    assert document["task"] == "mytask:Denoising"
    assert set(document["metrics"]) == {"val_mae", "val_loss"}
    assert {"train_mae", "val_mae"} <= set(document["history"][-1])


def test_it_is_pruned_repaired_finetuned_and_measured(here: Path) -> None:
    pruned = ("-s", "1.5", "--repair", "least-squares", "--criterion", "taylor", "-o", "small.safetensors")
    run("prune", "model.safetensors", "--allow-import", *pruned)
    assert read_document("small.safetensors")["task"] == "mytask:Denoising"
    teacher = ("--teacher", "model.safetensors", "--allow-import", "--json")
    tuned = run("finetune", "small.safetensors", *teacher, "--epochs", "1", "-o", "tuned.safetensors").json["models"][0]
    assert set(tuned) == {"input", "output", "epochs", "val_mae", "val_loss", "best_epoch", "before_mae"}
    found = run("eval", "model.safetensors", "tuned.safetensors", "--allow-import", "-o", "report", "--json").json
    assert {"mae", "mae_far", "loss"} <= set(found["models"][0])
    assert "top1" not in found["models"][0]
    rows = list(csv.DictReader(Path("report/models.csv").read_text().splitlines()))
    assert float(rows[1]["mae_far"]) > 0
    assert "MAE on the test images" in Path("report/report.md").read_text()


def test_rounds_end_when_the_error_grows_too_much(here: Path) -> None:
    rounds = ("-s", "4", "--rounds", "1", "--epochs", "1", "--lr", "1e-4", "--max-drop", "0")
    refused = call("iterate", "model.safetensors", "--allow-import", *rounds, "-o", "none.safetensors")
    assert refused.code == 3
    assert "The first round costs" in refused.err


def test_a_sensitivity_is_by_how_much_the_error_grows(here: Path) -> None:
    found = run("sensitivity", "model.safetensors", "--allow-import", "--ratio", "0.9", "--json").json["models"][0]
    assert found["mae"] > 0
    assert max(family["drops"]["0.9"] for family in found["families"]) > 0


def test_a_zoo_may_be_of_any_task(here: Path) -> None:
    Path("params.yaml").write_text(
        "zoo: {members: [{arch: 'mytask:Net', count: 1, heldout: 0}], validation: 0, train: {epochs: 1}}\n"
    )
    found = run("zoo", *TASK, "--params", "params.yaml", "-o", "zoo", "--json").json["models"][0]
    Path("params.yaml").unlink()
    assert found["val_mae"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("finetune", "model.safetensors", "--epochs", "1"), "importing runs its code"),
        (("eval", "model.safetensors", "--task", "classification"), "Some models were made for another task"),
        (("finetune", "net.pt", *ARCH, "--teacher", "model.safetensors", "--task", "classification"), "another task"),
        (("finetune", "model.safetensors", "--allow-import", "--mixup", "0.2"), "cannot be mixed"),
        (("finetune", "net.pt", *ARCH, "--task", "mytask:Half"), "something is missing"),
        (("finetune", "net.pt", *ARCH, "--task", "mytask:Wrong"), "cannot measure this model"),
        (("finetune", "net.pt", *ARCH, "--task", "mytask:Silent"), "does not measure what it should"),
        (
            ("finetune", "net.pt", *ARCH, "--task", "segmentation"),
            "expected one of classification, super-resolution, denoising or package.module",
        ),
    ],
)
def test_what_does_not_fit_is_refused(here: Path, arguments: tuple[str, ...], message: str) -> None:
    refused = call(*arguments)
    assert refused.code == 2
    assert message in " ".join(refused.err.replace("│", " ").split())


def test_a_model_trained_before_tasks_were_named_is_a_classifier(model: Path) -> None:
    assert "task" not in read_document(model)
    refused = call("eval", model, "--task", f"{OWN.stem}:Denoising")
    assert refused.code == 2
    assert "Some models were made for another task" in refused.err
