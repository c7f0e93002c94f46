"""``meta-train --shares``: from pruned models to a score head that says how much each layer is to lose."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import yaml
from cli_calling import TINY, call, run

from metaprune_cli.artifacts import read_document
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.pruning import make_plan, unit_scores
from metaprune_cli.workflows.loading import ModelSource, open_model

RANKS = {
    **TINY["meta-train"],
    "normaliser": "rank",
    "by_speedup": True,
    "objective": "shares",
    "epochs": 30,
    "lr": 0.05,
}


@pytest.fixture
def pruned(work: Path, tmp_path: Path) -> Path:
    """The zoo's models at two speed-ups, by opposite shares."""
    first, stages = ("--rule", "conv1*: min_ratio=0.6"), ("--rule", "layer3*: min_ratio=0.6")
    for speedup, rule in (("1.5", first), ("2.5", stages)):
        run("prune", "zoo/train", "-s", speedup, "--normaliser", "rank", *rule, "-o", tmp_path / "pruned")
    return tmp_path / "pruned"


def settings(tmp_path: Path, **changed: object) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**TINY, "meta-train": {**RANKS, "validate_every": 30, **changed}}))
    return path


def test_a_score_head_learns_from_pruned_models(work: Path, pruned: Path, tmp_path: Path) -> None:
    metanet = tmp_path / "metanet.safetensors"
    run("meta-train", "graphs/train", "--shares", pruned, "--params", settings(tmp_path), "-o", metanet)
    with (tmp_path / "metanet.history.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
    assert losses[-1] < 0.5 * losses[0]
    assert any(name.startswith("shares/") for name in read_document(metanet)["inputs"])


def test_held_out_models_with_examples_choose_the_epoch_by_them(work: Path, pruned: Path, tmp_path: Path) -> None:
    metanet = tmp_path / "metanet.safetensors"
    params = settings(tmp_path, validate_every=10)
    run("meta-train", "graphs/train", "--shares", pruned, "--params", params, "-o", metanet)
    with (tmp_path / "metanet.history.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_loss"]]
    assert not [name for row in rows for name in row if name.startswith("val_") and name != "val_loss"]
    losses = {int(row["epoch"]): float(row["val_loss"]) for row in rows}
    assert losses[0] == max(losses.values())
    assert read_document(metanet)["metrics"]["best_epoch"] == min(losses, key=losses.__getitem__)


def test_it_learns_from_searches_of_either_kind(work: Path, tmp_path: Path) -> None:
    quick = (
        "--population",
        4,
        "--iterations",
        1,
        "--leaders",
        1,
        "--repair-images",
        32,
        "-s",
        1.5,
        "-s",
        2.5,
        "--front",
    )
    net, shares = tmp_path / "net.safetensors", tmp_path / "shares"
    run("pruning-net", sorted(Path("zoo/train").iterdir())[0], "--epochs", 1, "-o", net)
    run("search", net, "--models", "zoo/train", *quick, "-o", shares / "net")
    run("search", "zoo/train", "--together", *quick, "-o", shares / "models")
    params, metanet = settings(tmp_path), tmp_path / "metanet.safetensors"
    run("meta-train", "graphs/train", "--shares", shares, "--params", params, "-o", metanet)
    taught_by = [name for name in read_document(metanet)["inputs"] if name.startswith("shares/")]
    assert len(taught_by) == 2 * 2 * len(list(Path("zoo/train").iterdir()))


def test_a_model_is_pruned_by_what_the_head_says_of_its_speedup(work: Path, model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    metanet = MetaNetwork(
        MetaNetworkConfig(layers=1, hidden=4, ratio=0.01, score_head=True, normaliser="rank", by_speedup=True)
    )
    assert metanet.codec.importance is not None
    torch.nn.init.normal_(metanet.codec.importance, std=4.0)
    metanet.save(tmp_path / "metanet.safetensors")
    run("transform", model, "--metanet", tmp_path / "metanet.safetensors", "-o", tmp_path / "better.safetensors")
    run("prune", tmp_path / "better.safetensors", "-s", "1.5", "-s", "2.5", "-o", tmp_path / "small")
    opened = open_model(tmp_path / "better.safetensors", ModelSource())
    graph, said = opened.neuron_graph(), opened.importance
    assert said is not None
    scores = unit_scores(graph, opened.model.state_dict(), "group-l2", normaliser="rank")
    assert not torch.equal((scores * said.tensor(1.5).exp()).argsort(), (scores * said.tensor(2.5).exp()).argsort())
    for speedup in (1.5, 2.5):
        plan = make_plan(graph, scores * said.tensor(speedup).exp(), speedup)
        written = read_document(tmp_path / "small" / f"better.pruned-{speedup:g}x.safetensors")
        assert [f["kept"] for f in written["pruning"]["families"]] == [list(f.kept) for f in plan.families]
        left = open_model(tmp_path / "small" / f"better.pruned-{speedup:g}x.safetensors", ModelSource()).importance
        assert left is not None
        assert sorted(left.tensor(4.0).tolist()) == pytest.approx(sorted(said.tensor(4.0)[plan.kept].tolist()))


@pytest.mark.parametrize(
    ("changed", "graphs", "text"),
    [
        ({"normaliser": "max"}, "graphs/train", "Only a score head over ranks learns"),
        ({"criterion": "group-l2"}, "graphs/train", "Only a score head over ranks learns"),
        ({"objective": "pruned", "weight_noise": 0.5}, "graphs/train", "only read with noise where nothing but shares"),
    ],
)
def test_who_cannot_learn_them_says_so(
    changed: dict[str, object], graphs: str, text: str, work: Path, pruned: Path, tmp_path: Path
) -> None:
    target = tmp_path / "metanet.safetensors"
    ran = call("meta-train", graphs, "--shares", pruned, "--params", settings(tmp_path, **changed), "-o", target)
    assert ran.code == 2
    assert text in " ".join(ran.err.replace("│", " ").split())
    assert not target.exists()


def test_without_examples_there_is_nothing_to_learn(work: Path, tmp_path: Path) -> None:
    ran = call("meta-train", "graphs/train", "--params", settings(tmp_path), "-o", tmp_path / "metanet.safetensors")
    assert ran.code == 2
    assert "nothing to learn from" in ran.err


def test_examples_have_to_be_of_the_zoos_structures_and_pruned(work: Path, model: Path, tmp_path: Path) -> None:
    params, target = settings(tmp_path), tmp_path / "metanet.safetensors"
    ran = call("meta-train", "graphs/train", "--shares", model, "--params", params, "-o", target)
    assert ran.code == 2
    assert "show nothing about shares" in ran.err
    run("prune", model, "-s", "1.5", "-o", tmp_path / "once.safetensors")
    run("prune", tmp_path / "once.safetensors", "-s", "1.2", "-o", tmp_path / "twice.safetensors")
    ran = call(
        "meta-train", "graphs/train", "--shares", tmp_path / "twice.safetensors", "--params", params, "-o", target
    )
    assert ran.code == 2
    assert "Nothing of the same structure" in ran.err
