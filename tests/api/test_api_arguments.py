"""What people hand over by mistake is named before any work is done, and so is what would have been right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mistakes
import numpy as np
import pytest
import torch
from mistakes import IMAGES, INPUT, net

import metaprune_cli as mp
from metaprune_cli.config_loader import parse, revised
from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.workflows import sensitivities

SPEEDUP = r"expected a number, got '2x'"
OTHERS = {
    "inputs: none": "pass a tensor with a batch of one",
    "inputs counted: none": "pass a tensor with a batch of one",
    **{f"speedup: {name}": SPEEDUP for name in ("prune", "compress", "search", "DHP")},
    "epochs": "epochs: expected a whole number",
    "settings": "not the settings.*OptimSettings.*got: dict",
    "test": "cannot be used as data",
    "task": "not a task",
    "rules": r"rules\[0\]: expected keys and values, got 'a'",
}
NO_MODELS = {
    "weights": "got: OrderedDict.*build it and call its load_state_dict",
    "path": "got: PosixPath.*open it with load_model",
    "class": r"got: the class Net.*an instance: Net\(…\)",
    "result": "got: Sparsified.*the attribute .model of this Sparsified",
    "list": "got: list.*the model itself",
}


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    made = subprocess.run([sys.executable, mistakes.__file__], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(made.stdout)
    return found


@pytest.fixture
def never_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivities, "measured", lambda *_: pytest.fail("something was measured"))


@pytest.mark.parametrize("kind", NO_MODELS)
@pytest.mark.parametrize("name", mistakes.TAKE_MODELS)
def test_what_is_not_a_model_is_said(name: str, kind: str, answers: dict[str, str]) -> None:
    assert re.match(f"(?s)InputError: This is not a model.*{NO_MODELS[kind]}", answers[f"{name} of {kind}"])


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_of_the_wrong_type_is_said(name: str, answers: dict[str, str]) -> None:
    assert re.match(f"(?s).*InputError: .*{OTHERS[name]}", answers[name].replace("FailedPassError", "InputError"))


@pytest.mark.parametrize("call", [mp.prune, mp.count_macs])
@pytest.mark.parametrize(
    ("inputs", "advice"),
    [
        ((1, 3, 8, 8), r"not the shape itself: torch.zeros\(1, 3, 8, 8\)"),
        (torch.Size((1, 3, 8, 8)), r"torch.zeros\(1, 3, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), "check the shapes of the inputs"),
    ],
)
def test_how_a_model_is_called_is_said(call: Callable[..., object], inputs: Any, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        call(net(), inputs)


def test_an_empty_batch_shows_nothing() -> None:
    with pytest.raises(InputError, match="example inputs are empty"):
        mp.encode(net(), torch.zeros(0, 3, 8, 8))


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize(
    ("speedup", "error", "text"),
    [
        (0.5, InputError, "expected a number above 1, got 0.5"),
        (float("nan"), InputError, "expected a number, got nan"),
        (1e9, TargetError, r"cannot be met.*the nearest feasible"),
    ],
)
def test_a_speedup_out_of_reach_is_said_before_layers_are_measured(
    speedup: float, error: type[Exception], text: str
) -> None:
    for call in (
        lambda: mp.prune(net(), INPUT, speedup=speedup, data=IMAGES, scope="sensitivity"),
        lambda: mp.compress(net(), IMAGES, speedup=speedup, epochs=0),
        lambda: mp.search(net(), INPUT, speedup=speedup, data=IMAGES),
        lambda: mp.DHP(net(), INPUT, speedup=speedup),
    ):
        with pytest.raises(error, match=f"(?s){text}"):
            call()


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"latency_batch": 0}, "batch: expected a number at least 1"),
        ({"max_drop": -1.0}, "max_drop: expected a number at least 0"),
        ({"lr": -1.0}, "lr: expected a number above 0"),
        ({"export": "small.foo"}, "does not tell the export format"),
        ({"device": "gpu"}, "(?s)device cannot be used.*auto, cpu, cuda"),
        ({"rules": [{"match": "*", "max_ratio": 2.0}]}, r"rules\[0\].max_ratio"),
    ],
)
def test_compress_says_it_before_it_begins(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        mp.compress(net(), IMAGES, **{"epochs": 0} | asked)


def test_compress_reads_what_can_be_read_only_once() -> None:
    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from zip(*(part.split(16) for part in IMAGES), strict=True)

    found, wanted = mp.compress(net(), batches(), epochs=1, test=batches()), mp.compress(net(), IMAGES, epochs=0)
    assert found.trained is not None
    assert found.verdict.before == wanted.verdict.before


def test_batches_have_samples() -> None:
    for call in (mp.evaluate, mp.finetune):
        with pytest.raises(InputError, match="batch_size: expected a number at least 1"):
            call(net(), IMAGES, batch_size=0)
    with pytest.raises(InputError, match="val_fraction"):
        mp.evaluate(net(), mp.DataSettings(val_fraction=2.0))


def test_zeros_of_entries_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"(?s)no such entries.*got: 7.weight"):
        mp.finetune(net(), IMAGES, epochs=1, zeros=["0.weight", "7.weight"])


@pytest.mark.parametrize(
    "given",
    [
        mp.OptimSettings(milestones=(1, 2)),
        mp.PruneSettings(rules=(mp.PruningRule(match="*", max_ratio=0.5),), speedup=(2.0, 3.0)),
        mp.SearchSettings(),
        mp.DataSettings(
            dataset="imagefolder", data_root="photos", preprocessing=mp.Preprocessing(mean=(0.0,), std=(1.0,))
        ),
    ],
)
def test_settings_survive_their_check(given: Any) -> None:
    assert revised(type(given), given, {}, section="any", where="here") == given


def test_what_python_has_for_text_and_numbers_is_taken() -> None:
    values = {"data_root": Path("photos"), "batch_size": np.int64(3), "val_fraction": torch.tensor(0.25)}
    found = parse(mp.DataSettings, values, section="data", where="here")
    assert (found.data_root, found.batch_size, found.val_fraction) == ("photos", 3, 0.25)
    pruned = mp.prune(net(), INPUT, speedup=np.float32(2), round_to=np.int64(2), rules=[{"match": "3", "ignore": True}])
    assert pruned.plan.speedup >= 1


def test_what_prune_returns_is_trained_as_a_pruned_model() -> None:
    pruned, constant = mp.prune(net(), INPUT), mp.OptimSettings(schedule="constant")
    for given, lr in ((pruned, 0.005), (pruned.model, 0.1)):
        assert mp.finetune(given, IMAGES, epochs=1, settings=constant).history[0]["lr"] == lr
    assert mp.finetune(pruned, IMAGES, epochs=1, lr=0.03, settings=constant).history[0]["lr"] == 0.03


def test_compress_takes_everything_about_the_training() -> None:
    adam = mp.OptimSettings(optimizer="adamw", schedule="constant", epochs=2)
    found = mp.compress(net(), IMAGES, settings=adam)
    assert found.trained is not None
    assert [row["lr"] for row in found.trained.history] == [0.001, 0.001]
