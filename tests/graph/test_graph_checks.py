"""A graph from a file: every index is compared with its extent before an engine walks over it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.artifacts import write_artifact
from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph import NeuronGraph, encode

Parts = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Of a network with a kernel, groups, a norm, a residual addition and a packed projection."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            return self.head((x + self.body(x)).mean((2, 3)))

    return encode(Net().eval(), torch.zeros(1, 3, 8, 8)).to_parts()


def test_what_was_written_is_read(parts: Parts, tmp_path: Path) -> None:
    graph = NeuronGraph.from_parts(*parts)
    graph.save(tmp_path / "g")
    assert NeuronGraph.load(tmp_path / "g").to_parts()[1] == parts[1]


def block(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(b for b in document["blocks"] if b["param"] == name)
    return found


def feature(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(f for f in document["features"] if f["name"] == name)
    return found


Change = Callable[[dict[str, Any]], object]
HOSTILE: dict[str, tuple[Change, str]] = {
    "start": (lambda d: block(d, "head.weight")["destinations"].update(start=2**40), "expected a range within"),
    "sources": (lambda d: block(d, "stem.weight")["sources"].update(start=10**6), "expected a range within"),
    "shape": (lambda d: block(d, "head.weight")["sources"].update(shape=[1, 2**40]), r"expected \[1, 8\]"),
    "range": (lambda d: d["locks"][0].update(neurons={"start": 0, "shape": [2**40]}), "expected a range within"),
    "offset": (lambda d: block(d, "head.weight").update(offset=2**40), "expected a region within 40 values"),
    "stride": (lambda d: block(d, "head.weight").update(stride=[40, 2**39, 1, 1]), "expected a region within"),
    "one past": (lambda d: block(d, "head.weight").update(offset=1), "expected a region within 40 values"),
    "size": (lambda d: block(d, "head.weight").update(size=[1, 2**39, 8, 1]), "expected a region within"),
    "overlap": (
        lambda d: block(d, "head.weight").update(stride=[40, 1, 1, 1]),
        "each value of head.weight at most once",
    ),
    "nothing": (
        lambda d: block(d, "head.weight").update(stride=[0, 0, 1, 1]),
        "each value of head.weight at most once",
    ),
    "twice": (lambda d: d["blocks"].append(block(d, "head.weight")), "each value of head.weight at most once"),
    "kernel": (lambda d: block(d, "stem.weight").update(kernel=[2, 2]), "expected 9 taps"),
    "param": (lambda d: block(d, "stem.weight").update(param="none"), "blocks.0.param: expected an entry"),
    "elements": (lambda d: feature(d, "stem.bias")["elements"].update(start=1), "expected a range within 8"),
    "neurons": (lambda d: feature(d, "stem.bias")["neurons"].update(start=10**9), "expected a range within"),
    "tensor": (lambda d: d.update(identity={"tensor": "none", "shape": [2, 8]}), "expected an index list"),
    "pairs": (lambda d: d.update(ties={"start": 0, "shape": [4]}), r"ties.shape: expected \[2, any\]"),
    "gap": (lambda d: d["layers"][1].__setitem__(1, 0), "layers.1: expected a start of"),
    "neurons without end": (lambda d: d.update(layers=[["a", 0, 2**40]]), "structure.layers: expected 1 to"),
    "entries": (lambda d: d["entries"].append("none"), "expected a tensor of the file"),
    "aliases": (
        lambda d: d.update(aliases={"head.weight": "head.bias"}),
        "aliases.head.weight: expected a second name",
    ),
    "cycle": (lambda d: d.update(aliases={"a": "b", "b": "a"}), "aliases.a: expected a second name"),
    "trainable": (lambda d: d["trainable"].append("norm.num_batches_tracked"), "expected floating-point entries"),
    "left out": (lambda d: d["features"].remove(feature(d, "stem.bias")), "verbatim: expected stem.bias"),
    "macs": (lambda d: block(d, "stem.weight").update(positions=2**60), "fewer than"),
    "flood": (lambda d: d.update(locks=[full_lock(d)] * 900_000), "expected indices for"),
}


def full_lock(document: dict[str, Any]) -> dict[str, Any]:
    return {"neurons": {"start": 0, "shape": [sum(size for _, _, size in document["layers"])]}, "reason": "x"}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_index_outside_its_extent_is_refused(parts: Parts, name: str) -> None:
    change, said = HOSTILE[name]
    tensors, document = parts[0], copy.deepcopy(parts[1])
    change(document)
    with pytest.raises(CorruptFileError, match=said):
        NeuronGraph.from_parts(tensors, document, "file")


@pytest.mark.parametrize("value", [-1, 2**31 - 1])
def test_an_index_list_is_checked_as_a_range_is(parts: Parts, value: int) -> None:
    tensors, document = dict(parts[0]), copy.deepcopy(parts[1])
    ids = torch.arange(8, dtype=torch.int32)
    ids[3] = value
    tensors["structure.mine"] = ids
    feature(document, "stem.bias")["neurons"] = {"tensor": "mine", "shape": [8]}
    with pytest.raises(CorruptFileError, match="expected indices in 0 to"):
        NeuronGraph.from_parts(tensors, document)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("blocks", [3], "structure.blocks.0: expected"),
        ("layers", [["a", True, 3]], "structure.layers.0.1: expected a valid integer"),
        ("layers", [["a", "0", 3]], "structure.layers.0.1: expected a valid integer"),
        ("locks", [{"neurons": {"start": 0, "shape": [1]}, "reason": "x", "plane": "?"}], "structure.locks.0.plane"),
        ("features", [{"name": "a", "kind": "?", "elements": 1, "neurons": 2}], "structure.features.0.kind"),
        ("ties", {"shape": [2, 0]}, "structure.ties: expected either a start or a tensor"),
        ("spans", [{"neurons": {"start": 0, "shape": [1]}, "operator": "x"}] * 10_001, "structure.spans"),
    ],
)
def test_a_structure_of_other_types_is_refused(
    parts: Parts, tmp_path: Path, field: str, value: object, said: str
) -> None:
    write_artifact(tmp_path / "g", "graph", parts[0], {"structure": {**parts[1], field: value}})
    with pytest.raises(CorruptFileError, match=said):
        NeuronGraph.load(tmp_path / "g")
