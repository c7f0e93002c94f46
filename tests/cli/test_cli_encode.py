"""``encode --observe``: what images show of units, from a model's graph to a metanetwork that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_calling import TINY, call, run

from metaprune_cli.artifacts import read_document
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.metanet import MetaNetwork
from metaprune_cli.pruning.observing import EVIDENCE


@pytest.fixture
def observed(work: Path, tmp_path: Path) -> Path:
    """Graphs of the zoo with what forty images show."""
    run("encode", "zoo/train", "--observe", 40, "-o", tmp_path / "graphs")
    return tmp_path / "graphs"


@pytest.fixture
def reading(observed: Path, tmp_path: Path) -> Path:
    """A metanetwork that has learnt to read it, more of it than two epochs teach."""
    params = tmp_path / "reading.yaml"
    params.write_text(yaml.safe_dump({**TINY, "metanet": {**TINY["metanet"], "evidence": True}}))
    file = tmp_path / "metanet.safetensors"
    run("meta-train", observed, "--params", params, "-o", file)
    network = MetaNetwork.load(file)
    assert network.config.evidence == EVIDENCE
    with torch.no_grad():
        for parameter in (network.codec.evidence, network.codec.importance):
            assert parameter is not None
            parameter.normal_()
    network.save(file, read_document(file))
    return file


def test_graphs_have_what_images_show(observed: Path, work: Path) -> None:
    file = next(observed.glob("*.safetensors"))
    graph = NeuronGraph.load(file)
    assert tuple(sorted(graph.evidence)) == tuple(sorted(EVIDENCE))
    assert read_document(file)["made_by"]["parameters"]["encode"] == {"observe": 40}
    plain = NeuronGraph.load(next(Path("graphs/train").glob("*.safetensors")))
    assert not plain.evidence
    assert all(torch.equal(tensor, graph.tensors[name]) for name, tensor in plain.tensors.items())


def test_without_images_nothing_can_be_observed(model: Path, tmp_path: Path) -> None:
    ran = call("encode", model, "--observe", 40, "--params", "none", "-o", tmp_path / "g.graph.safetensors")
    assert ran.code == 2
    assert "--dataset" in ran.err
    assert not list(tmp_path.iterdir())


def test_what_it_reads_is_looked_at_where_there_are_images(reading: Path, model: Path, tmp_path: Path) -> None:
    def importance(*given: object) -> torch.Tensor:
        run("transform", *given, "--metanet", reading, "--no-recalibrate", "-o", tmp_path / "out.safetensors")
        return torch.tensor(read_document(tmp_path / "out.safetensors")["importance"])

    def last() -> dict[str, Any]:
        document = read_document(tmp_path / "out.safetensors")
        return {**document["lineage"][-1], "images": "data" in document["inputs"]}

    blind = importance(model, "--params", "none")
    assert "observed" not in last()
    seeing = importance(model)
    assert last()["observed"]
    assert last()["images"]
    assert not last()["recalibrated"]
    assert not torch.allclose(blind, seeing)
    run("encode", model, "--observe", 512, "-o", tmp_path / "model.graph.safetensors")
    torch.testing.assert_close(importance(tmp_path / "model.graph.safetensors", "--params", "none"), seeing)


def test_a_metanetwork_cannot_learn_to_read_what_graphs_do_not_have(work: Path, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({**TINY, "metanet": {"evidence": True}}))
    ran = call("meta-train", "graphs/train", "--params", params, "-o", tmp_path / "metanet.safetensors")
    assert ran.code == 2
    assert "--observe" in ran.err
    assert "resnet8" in ran.err
