"""``mp.compress``: a module and images in, a smaller module and a verdict out."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from api_calling import DIGITS, EXAMPLE
from torch import nn

import metaprune as mp
from metaprune_cli.api import compress as module
from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.workflows import sensitivities

SHORT = {"speedup": 2.0, "epochs": 1, "latency_batch": 2, "repair_images": 40}


def test_a_model_and_images_come_to_a_smaller_model_a_file_and_a_verdict(model: nn.Module, tmp_path: Path) -> None:
    before = copy.deepcopy(model.state_dict())
    found = mp.compress(model, DIGITS, **SHORT, export=tmp_path / "small.pt2")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert mp.count_macs(model, EXAMPLE) / mp.count_macs(found.model, EXAMPLE) == found.verdict.speedup >= 2
    assert found.verdict.before == mp.evaluate(model, DIGITS)["top1"]
    assert found.verdict.after == mp.evaluate(found.model, DIGITS)["top1"]
    assert found.pruned.layers
    assert found.trained is not None
    assert found.trained.history[0]["lr"] < 0.01
    assert found.exported is not None
    assert Path(found.exported.output).is_file()
    said = r"Compressed: 2\.\dx fewer multiply-adds, .* here at batch 2; top-1 [\d.]+ → [\d.]+ %; \d+ s"
    assert re.fullmatch(said, repr(found))


def test_training_that_makes_it_worse_is_not_kept_and_said(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    figures = iter([90.0, 80.0, 70.0, 90.0, 80.0])  # whole, pruned, trained on validation images; whole and smaller
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: {"top1": next(figures)})
    found = mp.compress(model, DIGITS, **SHORT)
    assert found.model is found.pruned.model
    assert (found.verdict.before, found.verdict.after, found.verdict.drop) == (90.0, 80.0, 10.0)
    assert "made it worse on the validation samples (80.00 % before, 70.00 % after)" in caplog.text


def test_smaller_speedups_are_tried_until_one_costs_no_more_than_is_allowed(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([90.0, 70.0, 88.0, 90.0, 87.0])  # whole, at 2x, at 1.68x, and the verdict's
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: {"top1": next(figures)})
    found = mp.compress(model, DIGITS, **SHORT | {"epochs": 0}, max_drop=3.0)
    assert 1.68 <= found.pruned.plan.speedup < 2
    assert found.verdict.drop == 3.0
    monkeypatch.setattr(module, "evaluate", lambda one, *_, **__: {"top1": 90.0 if one is model else 50.0})
    with pytest.raises(TargetError, match=r"Every speed-up costs more accuracy than allowed") as error:
        mp.compress(model, DIGITS, **SHORT | {"epochs": 0}, max_drop=3.0)
    assert error.value.details["got"] == "2x: 40.00, 1.68x: 40.00, 1.41x: 40.00, 1.19x: 40.00"
    with pytest.raises(InputError, match="needs data to judge by"):
        mp.compress(model, example_inputs=EXAMPLE, max_drop=3.0)


def test_what_layers_can_lose_is_measured_once_for_all_that_are_tried(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [], sensitivities.measured
    monkeypatch.setattr(sensitivities, "measured", lambda *given: calls.append(given) or real(*given))
    monkeypatch.setattr(module, "evaluate", lambda one, *_, **__: {"top1": 90.0 if one is model else 50.0})
    with pytest.raises(TargetError, match=r"2x: 40.00, 1.68x: 40.00, 1.41x: 40.00, 1.19x: 40.00"):
        mp.compress(model, DIGITS, **SHORT | {"epochs": 0}, max_drop=3.0)
    assert len(calls) == 1


@pytest.mark.parametrize(("asked", "is_taught"), [({}, True), ({"teacher": False}, False), ({"teacher": True}, True)])
def test_a_classifier_learns_from_the_whole_one_too_unless_told_otherwise(
    asked: dict[str, bool], is_taught: bool, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers, real = [], mp.finetune
    monkeypatch.setattr(module, "finetune", lambda *a, **k: teachers.append(k["teacher"]) or real(*a, **k))
    for doubts in (None, "It only guesses."):
        monkeypatch.setattr(module, "doubt", lambda *_, said=doubts: said)
        mp.compress(model, DIGITS, **SHORT | asked)
    is_asked = asked.get("teacher", False)
    assert teachers == [model if is_taught else None, model if is_asked else None]


def test_a_model_that_only_guesses_is_said_to(model: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    nn.init.zeros_([module for module in model.modules() if isinstance(module, nn.Linear)][-1].weight)
    mp.compress(model, DIGITS, **SHORT | {"epochs": 0})
    assert "of the validation images correctly; guessing would give 10.0 %" in caplog.text
    assert "(DataSettings.preprocessing)" in caplog.text


def test_without_images_there_is_removal_alone(model: nn.Module) -> None:
    found = mp.compress(model, example_inputs=EXAMPLE, speedup=2.0, latency_batch=2)
    assert found.trained is None
    assert found.verdict.drop is None
    assert "accuracy not measured: no images" in str(found.verdict)
    with pytest.raises(InputError, match="The shape of the model's input is not known"):
        mp.compress(model)
