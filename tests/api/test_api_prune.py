"""``mp.prune`` is ``metaprune prune``: the same settings give the same bits."""

from __future__ import annotations

import copy
import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from api_calling import DIGITS, EXAMPLE
from torch import nn

import metaprune as mp
from metaprune_cli.config import PruneSettings, PruningRule
from metaprune_cli.errors import InputError
from metaprune_cli.stages.prune import prune as stage
from metaprune_cli.training.progress import Silence
from metaprune_cli.workflows import planning
from metaprune_cli.workflows.loading import ModelSource

REPAIR = {"repair": "least-squares", "repair_images": 60}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "uniform": {"scope": "family", "round_to": 2},
    "taylor": {"criterion": "taylor", "batches": 2},
    "random": {"criterion": "random", "seed": 3},
    "repaired": REPAIR,
    "searched": {"search": 4, "search_images": 60, **REPAIR},
    "rules": {"rules": (PruningRule("conv1*", ignore=True),), "keep_heads": True, "max_ratio": 0.9},
    "params": {"target": "params=1.5x"},
    "drop": {"target": "drop=20", **REPAIR},
}


def by_command(path: Path, output: Path, options: dict[str, Any]) -> nn.Module:
    target = (options["target"],) if "target" in options else ()
    settings = PruneSettings(**{**options, "target": target})
    stage(
        [path],
        output,
        settings,
        source=ModelSource(),
        data=DIGITS,
        device=torch.device("cpu"),
        progress=Silence(),
    )
    return mp.load_model(output)


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert list(mine) == list(theirs)
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_call_and_the_command_give_the_same_bits(
    options: dict[str, Any], model_file: Path, model: nn.Module, tmp_path: Path
) -> None:
    before = copy.deepcopy(model.state_dict())
    found = mp.prune(model, EXAMPLE, data=DIGITS, **options)
    assert_same_bits(found.model, by_command(model_file, tmp_path / "small.safetensors", options))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert found.plan.speedup > 1


def test_a_target_of_latency_is_the_commands_too(
    model_file: Path, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that counts units, so that two runs agree."""
    asked = []

    def by_units(target, *_):
        asked.append(target.quantity)
        return lambda kept: float(kept.sum())

    monkeypatch.setattr(planning, "measure_for", by_units)
    found = mp.prune(model, EXAMPLE, target="latency=70%")
    assert_same_bits(found.model, by_command(model_file, tmp_path / "small.safetensors", {"target": "latency=70%"}))
    assert asked == ["latency", "latency"]
    assert found.plan.quantity == "latency"


def test_attention_keeps_its_heads_where_it_is_told_to() -> None:
    attention = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    options = {"speedup": 1.5, "max_ratio": 0.9, "criterion": "random"}
    kept = mp.prune(attention, torch.zeros(1, 5, 16), keep_heads=True, **options)
    heads = [family for family in mp.encode(attention, torch.zeros(1, 5, 16)).units.families if family.kind == "heads"]
    rows = {family.name: family for family in kept.plan.families}
    assert heads
    assert all(rows[family.name].after == rows[family.name].before for family in heads)


def test_every_setting_of_the_command_is_an_argument() -> None:
    """But for those of several models, and of zeros, which have a call of their own."""
    own = {"together", "kind", "sparsity", "pattern", "block", "classifier", "first", "kernel_only"}
    arguments = inspect.signature(mp.prune).parameters
    settings = {field.name: field.default for field in fields(PruneSettings) if field.name not in own}
    assert set(settings) <= set(arguments)
    single = {"speedup": 2.0, "target": None}
    assert {name: arguments[name].default for name in settings} == settings | single


def test_tensors_serve_as_the_data_set_does(model: nn.Module, images: mp.Splits) -> None:
    (inputs, targets), *_ = images.train.batches(len(images.train))
    options = {"criterion": "taylor", "search": 2, "search_images": 30, "repair": "bias", "repair_images": 30}
    by_tensors = mp.prune(model, EXAMPLE, data=(inputs, targets), **options)
    by_name = mp.prune(model, EXAMPLE, data=mp.DataSettings(train_limit=120), **options)
    assert_same_bits(by_tensors.model, by_name.model)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"search": 2}, "A search needs images"),
        ({"target": "drop=1"}, "A target of drop needs images"),
        ({"repair": "bias"}, "The repair bias needs inputs"),
        ({"criterion": "taylor"}, "taylor"),
        ({"search": 2, "target": "drop=1", "data": DIGITS}, "cannot be searched for with a target of drop"),
        ({"search": 2, "scope": "family"}, "nothing to search for"),
        ({"data": torch.zeros(3)}, "cannot be used as data"),
    ],
)
def test_what_is_missing_is_said(options: dict[str, Any], text: str, model: nn.Module) -> None:
    with pytest.raises(InputError, match=text):
        mp.prune(model, EXAMPLE, **options)


def test_results_print_as_a_few_lines(model: nn.Module) -> None:
    found = mp.prune(model, EXAMPLE, data=DIGITS, repair="bias")
    text = repr(found)
    assert len(text) < 1200
    for part in ("group-l2, global", "repaired by bias", "MACs", "parameters", "→", "×", "relative error"):
        assert part in text
    assert f"{found.plan.macs_before:,}" in text
    assert len(repr(found.plan)) < 1200
    assert "kept=" not in repr(found.plan.families[0])
    graph = repr(mp.encode(model, EXAMPLE))
    assert len(graph) < 200
    assert f"{found.plan.macs_before:,} MACs" in graph


def test_names_from_elsewhere_do_nothing_to_a_terminal() -> None:
    model = nn.Sequential()
    model.add_module("a\x1b[2J", nn.Linear(4, 8))
    model.add_module("b", nn.Linear(8, 2))
    text = repr(mp.prune(model.eval(), torch.zeros(1, 4)))
    assert "\x1b" not in text
    assert "\\x1b" in text
