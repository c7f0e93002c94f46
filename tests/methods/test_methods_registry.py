"""The registry: what the package says of a method comes from its row, so a second one is a row and no more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from handmade import residual_net

from metaprune_cli.artifacts import read_artifact
from metaprune_cli.artifacts.format import KINDS
from metaprune_cli.config import OF_METHODS, Criterion, PruneSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.methods import registry
from metaprune_cli.methods.base import Files, Method, Proposal, Proposer, Scores
from metaprune_cli.methods.registry import learnt_by, methods, methods_in, scoring_method
from metaprune_cli.pruning.targets import Target
from metaprune_cli.stages.env import _selfchecks
from metaprune_cli.stages.list import listing, record
from metaprune_cli.workflows.arms import explained, methods_of, pipeline_arms, place
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.lineage import descent

DICE = Method(
    name="dice",
    about="throws dice for every unit",
    noun="pair of dice",
    command="throw",
    proposes=("scores", "units"),
    done="thrown for",
    criterion="random",
    source="antiquity",
)


def register(monkeypatch: pytest.MonkeyPatch, method: Method = DICE) -> None:
    """As the second one, whatever others there are."""
    monkeypatch.setattr(registry, "METHODS", (registry.METHODS[0], method))


ZOO = {"command": "zoo", "seed": 3}
TRANSFORM = {"command": "transform", "input": "net-3.safetensors", "scored": True}
THROW = {"command": "throw", "input": "net-3.safetensors", "requested": 4.0, "scored": True}
FINETUNE = {"command": "finetune", "input": "net-3.small.safetensors", "epochs": 5}
PRUNE = {"command": "prune", "input": "net-3.safetensors", "requested": 2.0, "criterion": "random"}


@pytest.fixture
def graph() -> NeuronGraph:
    return residual_net()


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_a_row_agrees_with_what_the_package_knows(method: Method) -> None:
    assert method.criterion is None or (method.criterion in get_args(Criterion) and method.criterion in OF_METHODS)
    assert (method.criterion is not None) == ("scores" in method.proposes)
    assert method.learnt is None or method.learnt.kind in KINDS
    for names in ({other.name for other in methods()}, {other.command for other in methods()}):
        assert len(names) == len(methods())


@pytest.mark.parametrize("method", [m for m in methods() if m.learnt], ids=lambda method: method.name)
def test_what_is_learnt_proposes_for_any_model(method: Method, graph: NeuronGraph) -> None:
    assert method.learnt is not None
    files = method.learnt.files()
    assert isinstance(files, Files)
    for name in files.shipped():
        artifact = read_artifact(files.find(name), method.learnt.kind)
        assert list(files.facts(artifact)) == list(method.learnt.facts)
        proposer = files.open(artifact)
        assert isinstance(proposer, Proposer)
        for target in (None, Target("macs", factor=2.0)):
            proposal = proposer.propose(graph, target)
            proposal.check_fits(graph)
            given = {"weights": proposal.tensors, "scores": proposal.scores, "units": proposal.kept}
            assert {part for part, value in given.items() if value is not None} <= set(method.proposes)
            assert target is None or proposal.scores is None or proposal.scores.values.dim() == 1


def test_what_does_not_fit_is_refused_all_at_once(graph: NeuronGraph) -> None:
    units, (first, *others) = graph.units.num_units, graph.tensors
    wrong = Proposal(
        {first: graph.tensors[first].flatten()[:1], **{name: graph.tensors[name] for name in others[1:]}},
        Scores(torch.zeros(units + 1)),
        torch.ones(units + 2, dtype=torch.bool),
    )
    with pytest.raises(InputError, match="does not fit the model") as refused:
        wrong.check_fits(graph)
    for text in (f"no {others[0]}", f"{first} of shape [1]", f"scores of shape [{units + 1}]", f"[{units + 2}]"):
        assert text in str(refused.value)
    Proposal(kept=torch.ones(units, dtype=torch.bool)).check_fits(graph)


def test_the_registry_imports_no_torch() -> None:
    code = "import sys, metaprune_cli.methods.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_row_makes_an_arm_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    assert pipeline_arms() == ("plain", "uniform", "metanet", "dice")
    assert sorted(["dice", "metanet", "taylor", "plain"], key=place) == ["plain", "taylor", "metanet", "dice"]
    assert explained("dice") == "thrown for"
    assert explained("dice finetuned") == "thrown for, finetuned before pruning"
    assert explained("plain") == "channels of all layers ranked together"
    assert methods_of("dice repaired") == (DICE,)


@pytest.mark.parametrize(
    ("proposes", "lineage", "expected"),
    [
        pytest.param(("units",), (ZOO, THROW), ("dice", "pruned", 4.0), id="removes"),
        pytest.param(("units",), (ZOO, THROW, FINETUNE), ("dice", "finetuned", 4.0), id="removes, finetuned"),
        pytest.param(("units",), (ZOO, TRANSFORM, THROW), ("metanet dice", "pruned", 4.0), id="two methods"),
        pytest.param(("scores",), (ZOO, THROW), ("dice", "unpruned", None), id="scores"),
        pytest.param(("scores",), (ZOO, THROW, PRUNE), ("dice", "pruned", 2.0), id="scores, pruned by its criterion"),
        pytest.param(
            ("scores",), (ZOO, THROW, TRANSFORM, PRUNE), ("dice metanet random", "pruned", 2.0), id="scored anew"
        ),
    ],
)
def test_a_lineage_is_read_by_the_rows(
    monkeypatch: pytest.MonkeyPatch, proposes: Any, lineage: tuple[Mapping[str, Any], ...], expected: tuple[object, ...]
) -> None:
    register(monkeypatch, replace(DICE, proposes=proposes))
    found = descent(lineage, Path("model.safetensors"))
    assert (found.arm, found.step, found.requested) == expected


def test_auto_is_the_criterion_of_the_method_that_scored_last(monkeypatch: pytest.MonkeyPatch) -> None:
    from metaprune_cli.models import Architecture
    from metaprune_cli.workflows.calibration import Calibration
    from metaprune_cli.workflows.loading import Opened
    from metaprune_cli.workflows.pruning import PruningRun

    register(monkeypatch)
    assert methods_in((ZOO, TRANSFORM, THROW, TRANSFORM)) == methods()
    assert scoring_method((TRANSFORM, THROW)) is DICE
    settings, model = PruneSettings(), torch.nn.Linear(2, 2)
    graph = encode(model, torch.zeros(1, 2))
    for lineage, criterion in (((TRANSFORM,), "metanet"), ((TRANSFORM, THROW), "random"), ((), "metanet")):
        document = {"importance": [0.0], "importance_normaliser": "rank", "lineage": lineage}
        opened = Opened(
            model, Architecture("x", input_shape=(2,)), lineage, Path("x"), importance=Importance.of(document)
        )
        run = PruningRun.of(opened, graph, settings, Calibration.none(settings))
        assert (run.criterion, run.normaliser) == (criterion, "rank")
        run = PruningRun.of(replace(opened, importance=None), graph, settings, Calibration.none(settings))
        assert run.criterion == "group-l2"


def test_scores_are_written_and_read_back() -> None:
    for values in (torch.tensor([0.0, 1.0]), torch.tensor([[0.0, 2.0], [1.0, 3.0]])):
        said = Importance.proposed(Scores(values, "rank"))
        assert Importance.of(said.to_document()) == said
        assert said.tensor(3.0).tolist() == [0.0, 1.0]


def test_lists_and_env_ask_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, replace(DICE, selfcheck="dice.check"))
    rows = {entry["name"]: entry for entry in map(record, listing("methods"))}
    assert list(rows) == ["metanet", "dice"]
    assert rows["metanet"]["learns"] == learnt_by("transform").kind == "metanetwork"
    assert (rows["dice"]["learns"], rows["dice"]["command"], rows["dice"]["source"]) == (None, "throw", "antiquity")
    assert _selfchecks() == {"metanet": "metaprune_cli.methods.metanet.selfcheck", "dice": "dice.check"}
