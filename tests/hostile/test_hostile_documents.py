"""Well-formed files with any document: they are refused, or used, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import hostile_documents
from forge import forge
from torch import Tensor

from metaprune_cli.artifacts import read_artifact, write_artifact
from metaprune_cli.config import PruningNetSettings
from metaprune_cli.errors import MetapruneError
from metaprune_cli.graph import encode
from metaprune_cli.methods.metanet.network import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.transform import rewritten
from metaprune_cli.methods.pruning_net.files import from_artifact, to_parts
from metaprune_cli.methods.pruning_net.training import untrained
from metaprune_cli.models import Architecture, save_model
from metaprune_cli.models.registry import build
from metaprune_cli.pruning.crops import Crops
from metaprune_cli.pruning.ranking import plain_limits
from metaprune_cli.pruning.width_space import WidthSpace
from metaprune_cli.reports.page import _figures, _said
from metaprune_cli.reports.widths import widths_of
from metaprune_cli.stages.inspect import inspect
from metaprune_cli.training.state import Best, TrainState, snapshot
from metaprune_cli.workflows.lineage import descent
from metaprune_cli.workflows.loading import ModelSource, open_graph, open_model
from metaprune_cli.workflows.made import Checkpoint, Made

COUNT = 60
KINDS = ("model", "graph", "metanetwork", "hypernetwork", "checkpoint")
ARCHITECTURE = Architecture("cifar:resnet8", {"width": 0.125, "num_classes": 10, "in_channels": 1}, (1, 8, 8))
LINEAGE = [
    {"command": "zoo", "input": None, "arch": "cifar:resnet8", "seed": 0},
    {"command": "transform", "input": "a.safetensors", "metanetwork": "0" * 64, "recalibrated": True, "scored": True},
    {"command": "prune", "input": "b.safetensors", "requested": 2.0, "achieved": 2.1, "criterion": "auto"},
    {"command": "prune", "input": "c.safetensors", "kind": "n:m", "pattern": "2:4", "sparsity": 0.5, "achieved": 0.5},
    {"command": "finetune", "input": "d.safetensors", "epochs": 2, "seed": 0, "teacher": "t", "mixup": 0.2},
]
FAMILIES = [{"name": f"family {i}", "before": 4, "after": 2, "kept": [0, 3], "locked": None} for i in range(3)]
SAID = {
    "lineage": LINEAGE,
    "zeros": {"kind": "n:m", "pattern": "2:4", "entries": ["head.2.weight"]},
    "pruning": {"requested": 2.0, "speedup": 2.1, "families": FAMILIES},
    "importance": [0.5, -0.5, 0.0],
    "importance_slope": [0.0, 0.1, 0.2],
    "importance_normaliser": "rank",
}
Good = tuple[dict[str, Any], dict[str, Tensor]]
MADE = Made.by("finetune", seed=0)
METANET = MetaNetwork(MetaNetworkConfig(layers=1, hidden=4))


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def pruning_net(model: torch.nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    inputs = torch.zeros(1, 1, 8, 8)
    graph = encode(model, inputs)
    space = WidthSpace.of(graph, plain_limits(graph.units, 0.75))
    net = untrained(model, graph, space, Crops.of(model, graph, inputs), PruningNetSettings(hidden=2))
    tensors, document = to_parts(net)
    return tensors, document | {"architecture": ARCHITECTURE.to_document(), "lineage": LINEAGE[:1]}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Good]:
    """A sound document and its tensors, of every kind."""
    folder, model = tmp_path_factory.mktemp("good"), build(ARCHITECTURE).eval()
    save_model(model, folder / "model", arch=ARCHITECTURE, extra=SAID, metrics={"top1": 1.0})
    tensors, structure = encode(model, torch.zeros(1, 1, 8, 8)).to_parts()
    said = {"structure": structure, "architecture": ARCHITECTURE.to_document(), "lineage": LINEAGE}
    write_artifact(folder / "graph", "graph", tensors, said | {"zeros": SAID["zeros"]})
    METANET.save(folder / "metanetwork", {"metrics": {"best_epoch": 1}})
    write_artifact(folder / "hypernetwork", "hypernetwork", *pruning_net(model))
    network, optimizer = trained()
    best = Best(1, 0.5, snapshot(network))
    state = TrainState.of(network, optimizer, [{"epoch": 1, "lr": 0.1}], epoch=1, best=best)
    Checkpoint(folder / "checkpoint", MADE).save(state)
    read = {kind: read_artifact(folder / kind) for kind in KINDS}
    return {kind: (artifact.document, artifact.tensors) for kind, artifact in read.items()}


def use_model(path: Path) -> None:
    opened = open_model(path, ModelSource())
    found = descent(opened.lineage, opened.path)
    widths_of(opened, found.arm)
    for step in opened.lineage:
        list(_said(step))
        _figures(step)
    opened.neuron_graph()
    if opened.importance is not None:
        opened.importance.tensor()


def use_graph(path: Path) -> None:
    opened = open_graph(path, ModelSource())
    graph = opened.neuron_graph()
    graph.summary()
    graph.to_pyg()
    rewritten(graph, METANET)


def use_metanetwork(path: Path) -> None:
    MetaNetwork.load(path)


def use_hypernetwork(path: Path) -> None:
    net = from_artifact(read_artifact(path, "hypernetwork"), allow_import=False)
    net(torch.zeros(2, 1, 8, 8))
    net.network(net.space.smallest())


def use_checkpoint(path: Path) -> None:
    state = Checkpoint(path, MADE).load()
    if state is not None:
        network, optimizer = trained()
        state.restore_(network, optimizer)
        network.load_state_dict(dict(state.best.weights) if state.best else network.state_dict())
        optimizer.step()


USES: dict[str, Callable[[Path], None]] = {
    "model": use_model,
    "graph": use_graph,
    "metanetwork": use_metanetwork,
    "hypernetwork": use_hypernetwork,
    "checkpoint": use_checkpoint,
}


def write(path: Path, kind: str, document: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    forge(path, tensors, {**document, "kind": kind, "format_version": 1})
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sound_is_used(good: dict[str, Good], kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", kind, *good[kind])
    inspect(path)
    USES[kind](path)


def attack(good: Good, kind: str, path: Path, seed: int, count: int) -> int:
    """Read and use ``count`` hostile files; returns how many of them were refused."""
    refused = 0
    document, tensors = good
    for label, hostile in itertools.islice(hostile_documents(kind, document, seed), count):
        write(path, kind, hostile, tensors)
        try:
            inspect(path)
            USES[kind](path)
        except MetapruneError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}: {label}") from error
    return refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_document_is_refused_or_does_no_harm(good: dict[str, Good], kind: str, tmp_path: Path) -> None:
    assert attack(good[kind], kind, tmp_path / "x.safetensors", seed=0, count=COUNT) > COUNT // 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("kind", KINDS)
def test_many_hostile_documents(good: dict[str, Good], kind: str, seed: int, tmp_path: Path) -> None:
    attack(good[kind], kind, tmp_path / "x.safetensors", seed, count=250)


def test_the_seed_draws_the_documents(good: dict[str, Good]) -> None:
    def labels(seed: int) -> list[str]:
        return [label for label, _ in itertools.islice(hostile_documents("model", good["model"][0], seed), 100)]

    assert labels(3) == labels(3)
    assert labels(3) != labels(4)
