"""What a command says beside its result: hints, warnings, how to go on, and which file is to blame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from cli_calling import call, run

from metaprune_cli.artifacts import read_document
from metaprune_cli.config.training import LR_AFTER_PRUNING, USUAL_LR
from metaprune_cli.models import Architecture, build
from metaprune_cli.stages import finetune, iterate

DIGITS = ("--dataset", "digits")


def said(text: str) -> str:
    """What a panel says, in one line."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of colour images, in a folder whose params.yaml is about digits."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("data: {dataset: digits}\nprune: {repair: least-squares}\n")
    torch.save(build(Architecture("cifar:resnet8", {"width": 0.25})).state_dict(), "mine.pt")
    return Path("mine.pt")


OPENED = ("--arch", "cifar:resnet8", "--arch-arg", "width=0.25", "--input-shape", "3,32,32")


@pytest.mark.parametrize("command", [("prune", "-s", "1.5"), ("transform", "--metanet", "digits")])
def test_a_settings_file_about_other_images_is_left_out_where_none_are_needed(
    foreign: Path, command: tuple[str, ...]
) -> None:
    ran = run(*command, foreign, *OPENED, "-o", "out.safetensors")
    assert "params.yaml is about other images (dataset: digits) than the model takes" in said(ran.err)
    (step,) = read_document(Path("out.safetensors"))["lineage"]
    assert "repair" not in step
    assert not step.get("recalibrated")
    assert "params.yaml" not in run(*command, foreign, *OPENED, "-o", "out.safetensors", "-q").err


def test_models_that_say_less_of_themselves_are_not_repaired_on_other_images_either(foreign: Path) -> None:
    ran = run("prune", foreign, *OPENED[:4], "-s", "1.5", "-o", "out.safetensors")
    assert "nothing of it was used" in said(ran.err)
    assert read_document(Path("out.safetensors"))["architecture"]["input_shape"] == [3, 32, 32]


@pytest.mark.parametrize(
    "command",
    [
        ("prune", "-s", "1.5", "--repair", "bn"),
        ("finetune", "--epochs", "1"),
        ("eval",),
        ("sensitivity",),
        ("iterate", "-s", "2"),
        ("search", "-s", "2"),
        ("dhp", "-s", "2"),
    ],
)
def test_a_settings_file_that_nobody_named_is_told_as_the_cause(foreign: Path, command: tuple[str, ...]) -> None:
    ran = call(*command, foreign, *OPENED)
    assert ran.code == 2
    assert "params.yaml was read, which is about other images or another task (dataset: digits)" in said(ran.err)
    assert "--params none, which leaves params.yaml out" in said(ran.err)
    assert "because" not in call(*command, foreign, *OPENED, *DIGITS).err


def test_a_settings_file_that_is_named_is_insisted_on(foreign: Path) -> None:
    ran = call("prune", foreign, *OPENED, "-s", "1.5", "--params", "params.yaml")
    assert ran.code == 2
    assert "different shapes" in said(ran.err)


def test_a_folder_alone_holds_images(foreign: Path) -> None:
    Path("photos").mkdir()
    ran = call("eval", foreign, *OPENED, "--data-root", "photos")
    assert ran.code == 2
    assert "No image folder images were found" in said(ran.err)
    assert "There are no test images" in said(
        call("eval", foreign, *OPENED, "--data-root", "photos", "--task", "denoising").err
    )


def test_without_a_settings_file_the_defaults_hold(foreign: Path) -> None:
    run("prune", foreign, *OPENED, "-s", "1.5", "--params", "none", "-q")
    assert "repair" not in read_document(Path("mine.pruned-1.5x.safetensors"))["lineage"][-1]


def test_a_files_own_task_and_preprocessing_come_before_a_settings_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model.resolve()
    monkeypatch.chdir(tmp_path)
    run("zoo", "import", path, "--mean", "0.5", "--std", "0.25", "-o", "zoo", "-q")
    section = {"dataset": "digits", "task": "denoising", "preprocessing": {"mean": [0.1], "std": [0.9]}}
    Path("params.yaml").write_text(yaml.safe_dump({"data": section, "prune": {"repair": "bn", "repair_images": 40}}))
    own = next(Path("zoo").rglob("*.safetensors"))
    run("prune", own, "-s", "1.5", "-o", "small.safetensors", "-q")
    made = read_document(Path("small.safetensors"))["made_by"]["parameters"]["data"]
    assert made["preprocessing"]["mean"] == [0.5]
    assert "task" not in made


def test_pruned_models_are_trained_at_a_learning_rate_of_their_own(model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.safetensors"
    run("prune", model, "-s", "1.5", "-o", small, "-q")
    options = ("--epochs", "1", "--params", "none", *DIGITS, "--batch-size", "256", "-q")
    for path, lr in ((model, USUAL_LR["sgd"]), (small, LR_AFTER_PRUNING.at_least)):
        run("finetune", path, *options, "-o", tmp_path / "out.safetensors")
        parameters = read_document(tmp_path / "out.safetensors")["made_by"]["parameters"]
        assert (parameters["finetune"]["lr"], parameters["data"]["batch_size"]) == (lr, 256)


def test_training_that_ends_below_its_start_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune.Trainer, "headline", lambda *_: 99.0)
    options = ("finetune", model, "--epochs", "1", "-o", tmp_path / "out.safetensors")
    ran = run(*options, "--json")
    assert "is worse than what it was made from, on the validation images: 99.00 % before" in ran.err
    assert ran.json["models"][0]["before_top1"] == 99.0
    assert run(*options, "-q").err == ""


def test_training_of_what_was_not_repaired_is_told_of_the_better_start(model: Path, tmp_path: Path) -> None:
    small, tuned = tmp_path / "small.safetensors", tmp_path / "tuned.safetensors"
    train = ("--epochs", "1", *DIGITS)
    for repair, is_said in (("none", True), ("bn", False)):
        run("prune", model, "-s", "1.5", *DIGITS, "--repair", repair, "-o", small, "-q")
        assert ("gives training a better start" in run("finetune", small, *train, "-o", tuned).err) == is_said
    assert "better start" not in run("finetune", tuned, *train, "-o", tmp_path / "again.safetensors").err


def test_images_that_nothing_is_repaired_with_are_told_of(model: Path, tmp_path: Path) -> None:
    options = ("prune", model, "-s", "1.5", "-o", tmp_path / "small.safetensors")
    assert "--repair least-squares" in run(*options, *DIGITS).err
    assert "--repair least-squares" not in run(*options).err + run(*options, *DIGITS, "--repair", "bn").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("iterate", "-s", "2"), "the same command with --resume"), (("prune", "-s", "2"), "from the beginning")],
)
def test_who_interrupts_a_command_is_told_how_to_go_on(
    arguments: tuple[str, ...], words: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(iterate, "goals_of", interrupt)
    monkeypatch.setattr(iterate.prune, "goals_of", interrupt)
    ran = call(*arguments, model, "-o", tmp_path / "out.safetensors")
    assert ran.code == 130
    assert words in said(ran.err)
