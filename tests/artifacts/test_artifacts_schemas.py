"""A right digest is no reason to believe a document: every field is checked before it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprune_cli.artifacts import FORMAT_VERSION, read_artifact, write_artifact
from metaprune_cli.artifacts.schemas import check_contents
from metaprune_cli.errors import CorruptFileError

ARCHITECTURE = {"name": "cifar:resnet8", "args": {"width": 0.5}, "input_shape": [1, 8, 8]}
STEP = {"command": "prune", "input": "a.safetensors", "requested": 2.0, "criterion": "auto", "scope": "global"}
FAMILY = {"name": "stem", "before": 8, "after": 4, "kept": [0, 1, 2, 3], "locked": None}
MODEL: dict[str, Any] = {
    "architecture": ARCHITECTURE,
    "lineage": [{"command": "zoo", "input": None, "arch": "cifar:resnet8", "seed": 3}, STEP],
    "zeros": {"kind": "n:m", "pattern": "2:4", "entries": ["weight"]},
    "pruning": {"requested": 2.0, "speedup": 2.1, "families": [FAMILY]},
    "aliases": {"second": "weight"},
    "preprocessing": {"mean": [0.5, 0], "std": [0.25, 1], "image_size": 96, "crop": 0.9, "interpolation": "bicubic"},
    "metrics": {"top1": 97.25},
    "importance": [0.5, -1],
    "made_by": {"command": "prune", "parameters": {"speedup": [2]}, "seed": 0, "versions": {"python": "3.11"}},
}
CHECKPOINT: dict[str, Any] = {
    "fingerprint": "f",
    "state": {"epoch": 1, "history": [{"epoch": 1, "lr": 0.1}], "best": {"epoch": 1, "score": 0.5}},
}
METANETWORK: dict[str, Any] = {"config": {"layers": 2, "hidden": 4, "ratio": 0.1, "kernels": []}}


def check(kind: str, document: dict[str, Any]) -> None:
    check_contents({**document, "kind": kind, "format_version": FORMAT_VERSION, "inputs": {}}, {}, "file")


@pytest.mark.parametrize(
    ("kind", "document"), [("model", MODEL), ("checkpoint", CHECKPOINT), ("metanetwork", METANETWORK)]
)
def test_what_metaprune_writes_passes(kind: str, document: dict[str, Any]) -> None:
    check(kind, document)
    check(kind, {**document, "mine": {"anything": [1, None, "x"]}})


@pytest.mark.parametrize("name", ["builtin", "builtin-images", "digits", "digits-rank"])
def test_the_metanetworks_that_come_with_it_pass(name: str) -> None:
    import metaprune_cli

    read_artifact(Path(metaprune_cli.__file__).parent / "builtin" / f"{name}.safetensors", "metanetwork")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"architecture": 3}, "architecture"),
        ({"preprocessing": [1]}, "preprocessing"),
        ({"preprocessing": {"mean": [123.7]}}, "preprocessing.mean.0"),
        ({"preprocessing": {"mean": ["0.5"]}}, "preprocessing.mean.0"),
        ({"preprocessing": {"mean": [0.5] * 2000}}, "preprocessing.mean"),
        ({"preprocessing": {"std": [0.0]}}, "preprocessing.std.0"),
        ({"preprocessing": {"image_size": 10**6}}, "preprocessing.image_size"),
        ({"preprocessing": {"image_size": 32.5}}, "preprocessing.image_size"),
        ({"preprocessing": {"crop": 1e-9}}, "preprocessing.crop"),
        ({"preprocessing": {"interpolation": "__import__"}}, "preprocessing.interpolation"),
        ({"preprocessing": {"channels": "cmyk"}}, "preprocessing.channels"),
        ({"architecture": {**ARCHITECTURE, "name": None}}, "architecture.name"),
        ({"architecture": {**ARCHITECTURE, "args": [1]}}, "architecture.args"),
        ({"architecture": {**ARCHITECTURE, "input_shape": [10**12]}}, "architecture.input_shape.0"),
        ({"architecture": {**ARCHITECTURE, "input_shape": [3, 10**5, 10**5]}}, "architecture.input_shape"),
        ({"architecture": {**ARCHITECTURE, "input_shape": [1] * 50}}, "architecture.input_shape"),
        ({"architecture": {**ARCHITECTURE, "input_shape": ["3"]}}, "architecture.input_shape.0"),
        ({"architecture": {**ARCHITECTURE, "input_shape": [-1]}}, "architecture.input_shape.0"),
        ({"lineage": {}}, "lineage"),
        ({"lineage": [7]}, "lineage.0"),
        ({"lineage": [{"input": "a"}]}, "lineage.0.command"),
        ({"lineage": [{**STEP, "requested": "2"}]}, "lineage.0.requested"),
        ({"lineage": [{**STEP, "requested": True}]}, "lineage.0.requested"),
        ({"lineage": [{**STEP, "epochs": [1]}]}, "lineage.0.epochs"),
        ({"lineage": [{**STEP, "search": "x"}]}, "lineage.0.search"),
        ({"lineage": [{"command": "prune", "kind": "block"}]}, "lineage.0"),
        ({"lineage": [{"command": "sparsify", "kind": "block"}]}, "lineage.0"),
        ({"lineage": [{"command": "sparsify"}]}, "lineage.0"),
        ({"lineage": [{**STEP, "requested": 1e9}] * 100}, "lineage"),
        ({"lineage": [STEP] * 1001}, "lineage"),
        ({"zeros": {"kind": "?", "pattern": None, "entries": []}}, "zeros.kind"),
        ({"zeros": {"kind": "n:m", "pattern": "many", "entries": []}}, "zeros.pattern"),
        ({"zeros": {"kind": "n:m", "pattern": "2:4", "entries": "weight"}}, "zeros.entries"),
        ({"metrics": [1]}, "metrics"),
        ({"aliases": {"a": 1}}, "aliases.a"),
        ({"aliases": None}, "aliases"),
        ({"pruning": {"families": [{**FAMILY, "before": 0}]}}, "pruning.families.0.before"),
        ({"pruning": {"families": [{**FAMILY, "after": 9}]}}, "pruning.families.0"),
        ({"importance": [0.5, None]}, "importance.1"),
        ({"importance_slope": [0.5]}, "the document"),
        ({"made_by": {"parameters": 1}}, "made_by.parameters"),
        ({"more": math.nan}, "more"),
        ({"more": 10**400}, "more"),
        ({"more": "\ud800"}, "more"),
    ],
)
def test_a_model_with_a_wrong_field_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(CorruptFileError, match=f"got: {field}: ") as refused:
        check("model", {**MODEL, **change})
    assert refused.value.exit_code == 4


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epoch": -1}, "state.epoch"),
        ({"epoch": 10**12}, "state.epoch"),
        ({"epoch": 5}, "state"),
        ({"history": [3]}, "state.history.0"),
        ({"history": [{"lr": "x"}]}, "state.history.0.lr"),
        ({"best": {"epoch": 2, "score": 0.0}}, "state"),
        ({"best": {"epoch": 1, "score": "low"}}, "state.best.score"),
    ],
)
def test_a_checkpoint_with_a_wrong_field_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(CorruptFileError, match=f"got: {field}: "):
        check("checkpoint", {"fingerprint": "f", "state": {**CHECKPOINT["state"], **change}})


@pytest.mark.parametrize("field", ["layers", "hidden"])
@pytest.mark.parametrize("value", [2**63, 10**9, 0, -1, "8", 1.5, True, None])
def test_a_metanetwork_of_no_size_is_refused(field: str, value: object) -> None:
    with pytest.raises(CorruptFileError, match=rf"config\.{field}: "):
        check("metanetwork", {"config": {**METANETWORK["config"], field: value}})


def test_all_problems_are_named_at_once_with_what_is_there() -> None:
    wrong = {**MODEL, "metrics": "good", "aliases": [1, 2], "lineage": [{"command": 7}]}
    with pytest.raises(CorruptFileError) as refused:
        check("model", wrong)
    said = str(refused.value)
    assert "metrics: expected a valid dictionary, got 'good'" in said
    assert "aliases: expected a valid dictionary, got a list of 2" in said
    assert "lineage.0.command: expected a valid string, got 7" in said
    assert "where: file" in said


def test_nesting_without_end_is_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"x": deep}
    with pytest.raises(CorruptFileError, match="at most 64 levels"):
        check("model", {**MODEL, "more": deep})


@pytest.mark.parametrize("shape", [(0, 2**60), (1,) * 40])
def test_shapes_that_nothing_can_hold_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_artifact(tmp_path / "a", "model", {"weight": torch.zeros(shape)}, MODEL)
    with pytest.raises(CorruptFileError, match="tensor weight: expected a shape that memory can hold"):
        read_artifact(tmp_path / "a")
