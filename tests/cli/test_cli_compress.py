"""``compress``: one call from a model and images to a smaller model, its export and a verdict; going on; refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_calling import call, run

from metaprune_cli.artifacts import file_sha256, read_document
from metaprune_cli.config import PruneSettings
from metaprune_cli.config.training import LR_AFTER_PRUNING
from metaprune_cli.errors import InputError
from metaprune_cli.models import load_model
from metaprune_cli.stages import compress as stage
from metaprune_cli.stages import compress_steps
from metaprune_cli.workflows import sensitivities

DIGITS = ("--dataset", "digits", "--batch-size", "128", "--latency-batch", "2", "--format", "safetensors")
SHORT = (*DIGITS, "--epochs", "1", "--scope", "global")


@pytest.fixture(scope="module")
def foreign(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The held-out model as other people's scripts leave one: a state dict."""
    path = tmp_path_factory.mktemp("foreign") / "mine.pt"
    torch.save(load_model(pipeline / "zoo/heldout/resnet8-3.safetensors").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def opened() -> tuple[str, ...]:
    return ("--arch", "cifar:resnet8", "--arch-arg", "width=0.25", "--arch-arg", "in_channels=1")


@pytest.fixture(scope="module")
def done(foreign: Path, opened: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of one run, and what it said."""
    folder = tmp_path_factory.mktemp("compressed") / "out"
    found = run("compress", foreign, *opened, "--speedup", "2", *SHORT, "-o", folder, "--json")
    return folder, found.json


def test_a_foreign_model_and_images_come_to_a_smaller_model_an_export_a_report_and_a_verdict(
    done: tuple[Path, Any],
) -> None:
    folder, said = done
    (one,) = said["models"]
    assert re.fullmatch(
        r"2\.\dx fewer multiply-adds, (not|\d+\.\dx) faster here at batch 2; top-1 [\d.]+ → [\d.]+ %; \d+ s",
        one["verdict"],
    )
    assert one["measured_on"] == "test"
    assert all(Path(path).is_file() for path in [one["output"], *one["exports"], said["report"]])
    names = {"mine.safetensors", "mine.pruned-2x.safetensors", "mine.pruned-2x.finetuned.safetensors", "report.html"}
    assert names <= {path.name for path in folder.iterdir()}
    steps = [step["command"] for step in read_document(folder / "mine.pruned-2x.finetuned.safetensors")["lineage"]]
    assert steps == ["zoo", "prune", "finetune"]


def test_what_is_known_to_be_best_is_on(done: tuple[Path, Any]) -> None:
    folder, _ = done
    pruned, tuned = (folder / f"mine.pruned-2x{end}.safetensors" for end in ("", ".finetuned"))
    assert read_document(pruned)["lineage"][-1]["repair"] == "least-squares"
    assert read_document(tuned)["made_by"]["parameters"]["finetune"]["lr"] == LR_AFTER_PRUNING.at_least
    assert "teacher" not in read_document(tuned)["lineage"][-1]  # it only guesses


def test_what_is_done_is_not_done_again_and_what_has_changed_is(
    done: tuple[Path, Any],
    foreign: Path,
    opened: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, said = done
    again = ("compress", foreign, *opened, "--speedup", "2", *SHORT, "-o", folder, "--json")
    called: list[str] = []
    for name in ("prune", "finetune", "export"):
        module = getattr(compress_steps, name)
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name, **k: called.append(name) or real(*a, **k))
    assert run(*again).json == said
    assert called == []
    Path(said["models"][0]["exports"][0]).unlink()
    assert run(*again).json["models"][0]["exports"] == said["models"][0]["exports"]
    assert called == ["export"]
    caplog.clear()
    run(*again, "--epochs", "2")
    assert called == ["export", "finetune", "export"]
    said_of_steps = [record.getMessage() for record in caplog.records if record.name.endswith(".steps")]
    assert said_of_steps == ["Settings or inputs have changed, so steps run again: finetune.epochs was 1, is 2"]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    done: tuple[Path, Any],
    foreign: Path,
    opened: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = tmp_path / "whole"
    arguments = ("compress", foreign, *opened, "--speedup", "2", *SHORT)
    run(*arguments, "-o", whole, "-q")
    real = compress_steps.export.export
    monkeypatch.setattr(compress_steps.export, "export", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    stopped = call(*arguments, "-o", tmp_path / "parts", "-q")
    assert stopped.code == 130
    monkeypatch.setattr(compress_steps.export, "export", real)
    run(*arguments, "-o", tmp_path / "parts", "-q")
    for name in ("mine.pruned-2x.safetensors", "mine.pruned-2x.finetuned.safetensors"):
        assert file_sha256(tmp_path / "parts" / name) == file_sha256(whole / name)


def test_without_images_there_is_removal_alone_and_it_is_said_what_that_costs(model: Path, tmp_path: Path) -> None:
    ran = run("compress", model, "--speedup", "2", "-o", tmp_path, *DIGITS[4:])
    assert "accuracy not measured: no images" in ran.out
    assert "removal alone costs a lot" in ran.err
    assert "Add --dataset imagefolder --data-root DIR." in ran.err
    assert not list(tmp_path.glob("*finetuned*"))


def test_params_yaml_is_not_read(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model.resolve()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("data: {dataset: cifar10, data_root: nowhere}\nprune: {repair: least-squares}\n")
    plan = run("compress", path, "--dry-run", "--json").json["plan"]
    assert [part["step"] for part in plan] == ["prune-2x", "export-2x", "bench"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    said = run("compress", model, *DIGITS, "--speedup", "2", "--speedup", "3", "--dry-run", "-o", tmp_path / "out")
    for step in ("prune-2x", "finetune-3x", "about", "repaired on 1024 images", "10 epochs of"):
        assert step in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("more", "is_taught"), [((), True), (("--no-teacher",), False)])
def test_training_that_makes_it_worse_is_said_and_not_kept(
    more: tuple[str, ...], is_taught: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"whole": 90.0, "pruned-2x": 85.0, "finetuned-2x": 84.0}
    monkeypatch.setattr(compress_steps, "judged", lambda _, name, __: said[name])
    ran = run("compress", model, *SHORT, *more, "-s", "2", "-o", tmp_path, "--json")
    (one,) = ran.json["models"]
    assert one["validation"]["finetuned"] < one["validation"]["pruned"]
    assert one["output"].endswith("pruned-2x.safetensors")
    assert "training made it worse on the validation images (85.00 % before, 84.00 % after)" in ran.err
    tuned = read_document(tmp_path / "resnet8-3.pruned-2x.finetuned.safetensors")
    assert ("teacher" in tuned["lineage"][-1]) == is_taught


def test_the_largest_speed_up_within_the_limit_is_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"whole": 90.0, "pruned-4x": 70.0, "pruned-2.83x": 85.0, "pruned-2x": 89.5, "pruned-1.41x": 90.0}
    monkeypatch.setattr(compress_steps, "judged", lambda _, name, __: said[name])
    calls, real = [], sensitivities.measured
    monkeypatch.setattr(sensitivities, "measured", lambda *given: calls.append(given) or real(*given))
    limit = ("compress", model, *DIGITS, "--epochs", "0", "-s", "4", "-o", tmp_path, "--max-drop")
    (one,) = run(*limit, "1", "--json").json["models"]
    assert one["requested"] == 2
    assert len(calls) == 1  # what each layer can lose, for 4x, 2.83x and 2x
    said |= dict.fromkeys(list(said)[1:], 50.0)
    refused = call(*limit, "1")
    assert refused.code == 3
    assert "4x: 40.00, 2.83x: 40.00, 2x: 40.00, 1.41x: 40.00" in " ".join(refused.err.replace("│", "").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-drop", "1"), "--max-drop needs images."),
        (("--repair", "bn"), "needs images."),
        (("--method", "magic"), "Unknown method."),
        (("--metanet", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: tuple[str, ...], words: str, model: Path) -> None:
    ran = call("compress", model, *arguments)
    assert ran.code == 2
    assert words in ran.err


def test_a_record_of_somebody_else_is_not_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "compress.json").write_text(json.dumps({"mine": 1}))
    ran = call("compress", model, "-o", tmp_path)
    assert ran.code == 2
    assert "not a record of such steps" in " ".join(ran.err.replace("│", " ").split())
    assert json.loads((tmp_path / "compress.json").read_text()) == {"mine": 1}


def test_patches_repair_what_restores_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them has as many positions to fit as many small images."""
    monkeypatch.chdir(tmp_path)
    asked: list[PruneSettings] = []

    def stop(*_: object, pruning: PruneSettings, **__: object) -> None:
        asked.append(pruning)
        raise InputError("That is all.")

    monkeypatch.setattr(stage, "compress", stop)
    Path("net.pt").touch()
    call("compress", "net.pt", "--task", "denoising", "--dataset", "photos")
    call("compress", "net.pt", "--dataset", "digits")
    assert [(one.criterion, one.scope, one.repair_images) for one in asked] == [
        ("auto", "auto", 64),
        ("auto", "auto", 1024),
    ]


def test_with_images_each_layer_loses_what_it_can_unless_somebody_says_otherwise(model: Path, tmp_path: Path) -> None:
    ways: list[tuple[tuple[str, ...], str]] = [((), "sensitivity"), (("--criterion", "group-l1"), "global")]
    for options, scope in ways:
        folder = tmp_path / scope
        run("compress", model, *DIGITS, "--epochs", "0", "-s", "2", *options, "-o", folder, "-q")
        (small,) = folder.glob("*.pruned-2x.safetensors")
        assert read_document(small)["lineage"][-1]["scope"] == scope
