"""What images show, read by a metanetwork: nothing before it is learnt, the same by both backends, and optional."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from handmade import mlp, residual_net
from torch.testing import assert_close

from metaprune_cli.artifacts import read_artifact, write_artifact
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, rewritten
from metaprune_cli.methods.metanet.evidence import ACROSS, COLUMNS, WITHIN, columns_of
from metaprune_cli.methods.metanet.files import Rewriter
from metaprune_cli.pruning.observing import EVIDENCE

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyG's import, once


def observed(graph: NeuronGraph, scale: float = 1.0) -> NeuronGraph:
    generator = torch.Generator().manual_seed(0)
    count = graph.units.num_units
    return graph.with_evidence({name: scale * torch.rand(count, generator=generator) for name in EVIDENCE})


def metanetwork() -> MetaNetwork:
    torch.manual_seed(0)
    network = MetaNetwork(MetaNetworkConfig(layers=2, hidden=8, score_head=True, evidence=EVIDENCE))
    torch.nn.init.normal_(network.codec.importance)  # type: ignore[arg-type]
    return network


def test_untrained_it_says_what_it_says_without() -> None:
    graph, network = residual_net(), metanetwork()
    assert_close(network.rewrite(observed(graph)).importance, network.rewrite(graph).importance, rtol=0, atol=0)


def test_backends_agree_and_what_is_shown_counts() -> None:
    graph, network = observed(residual_net()), metanetwork()
    torch.nn.init.normal_(network.codec.evidence)  # type: ignore[arg-type]
    ours, oracles = (network.rewrite(graph, backend=backend).importance for backend in ("blocks", "edges"))  # type: ignore[arg-type]
    assert_close(ours, oracles, rtol=1e-4, atol=1e-5)
    without = network.rewrite(graph.with_evidence({})).importance
    assert not torch.allclose(ours, without)  # type: ignore[arg-type]
    some = graph.with_evidence({"taylor": graph.evidence["taylor"]})  # not all that it reads
    assert_close(network.rewrite(some).importance, without)


def test_the_numbers_have_no_scale_and_bounds() -> None:
    graph = observed(residual_net(width=6))
    names = ("taylor", "activation")
    columns = columns_of(graph, names)
    assert columns.shape == (graph.num_neurons, COLUMNS * len(names))
    assert_close(columns_of(observed(graph, 1e-3), names), columns, rtol=1e-4, atol=1e-4)
    wild = graph.with_evidence({name: torch.logspace(-30, 30, graph.units.num_units) for name in names})
    bounds = torch.tensor([WITHIN, ACROSS] * len(names))
    assert bool((columns_of(wild, names).abs() <= bounds).all())
    nothing = graph.with_evidence({name: torch.zeros(graph.units.num_units) for name in EVIDENCE})
    assert not columns_of(nothing, EVIDENCE).any()


def test_a_metanetwork_that_misses_images_says_so(caplog: pytest.LogCaptureFixture) -> None:
    rewritten(observed(mlp()), metanetwork())
    assert not caplog.records
    rewritten(mlp(), metanetwork())
    assert "learnt to read what training images show" in caplog.text


def test_a_graph_keeps_it_in_its_file_and_other_tensors_do_not_have_it(tmp_path: Path) -> None:
    graph = observed(mlp())
    graph.save(tmp_path / "a.graph.safetensors")
    again = NeuronGraph.load(tmp_path / "a.graph.safetensors")
    assert again.evidence.keys() == graph.evidence.keys()
    assert all(torch.equal(again.evidence[name], values) for name, values in graph.evidence.items())
    assert again.state_dict().keys() == graph.state_dict().keys()
    assert not graph.with_tensors(graph.tensors).evidence


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.full((1,), float("nan")), torch.zeros(1, dtype=torch.int64)])
def test_evidence_of_something_else_is_refused(tmp_path: Path, wrong: torch.Tensor) -> None:
    graph, path = mlp(), tmp_path / "a.graph.safetensors"
    tensors, structure = graph.to_parts()
    values = wrong.expand(graph.units.num_units).clone() if len(wrong) == 1 else wrong
    write_artifact(path, "graph", {**tensors, "evidence.taylor": values}, {"structure": structure})
    with pytest.raises(CorruptFileError, match=r"evidence\.taylor"):
        NeuronGraph.load(path)


def test_a_metanetworks_file_says_what_it_reads(tmp_path: Path) -> None:
    network, path = metanetwork(), tmp_path / "metanet.safetensors"
    network.save(path)
    again = MetaNetwork.load(path)
    assert again.config.evidence == EVIDENCE
    assert Rewriter(again).reads_images
    artifact = read_artifact(path, "metanetwork")
    del artifact.document["config"]["evidence"]
    with pytest.raises(CorruptFileError, match=r"codec\.evidence"):
        MetaNetwork.from_parts(artifact.tensors, artifact.document)
    with pytest.raises(InputError, match="horoscope"):
        MetaNetworkConfig(evidence=("horoscope",))
