"""The metanetwork's invariants: backends agree, permuted in is permuted out, near the identity yet trainable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from handmade import dense_net, mlp, residual_net
from torch import Tensor
from torch.testing import assert_close

from metaprune_cli.artifacts import read_artifact
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyG's import, once

GRAPHS = [mlp, residual_net, dense_net]
KERNELS = ((), (1, 1), (3, 3), (2, 2))


def metanetwork(ratio: float = 1.0, **options: object) -> MetaNetwork:
    """Untrained, its decoders enlarged so that the change is of the weights' own size."""
    torch.manual_seed(0)
    network = MetaNetwork(MetaNetworkConfig(layers=3, hidden=12, ratio=ratio, **options))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in network.codec.named_parameters():
            if name.startswith(("taps_out.outer", "taps_out.tables", "kinds_out")):
                parameter.mul_(100)
    return network


def change(network: MetaNetwork, graph: NeuronGraph, backend: str = "blocks") -> dict[str, Tensor]:
    written = network(graph, backend=backend)
    return {name: written[name] - graph.tensors[name] for name in sorted(graph.trainable)}


@pytest.mark.parametrize("codec", ["coordinate", "per-kernel"])
@pytest.mark.parametrize("make", GRAPHS)
def test_backends_agree_on_values_and_gradients(make: Callable[[], NeuronGraph], codec: str) -> None:
    graph, network = make(), metanetwork(codec=codec, kernels=KERNELS if codec == "per-kernel" else ())
    results = []
    for backend in ("blocks", "edges"):
        network.zero_grad()
        changes = change(network, graph, backend)
        sum(values.sin().sum() for values in changes.values()).backward()  # type: ignore[union-attr]
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        results.append((changes, gradients))
    assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["blocks", "edges"])
def test_permuting_hidden_channels_permutes_the_output(backend: str) -> None:
    graph, network = residual_net(width=6), metanetwork()
    order = torch.randperm(6)

    def permute(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = {n: t[order] if t.dim() and len(t) == 6 else t for n, t in tensors.items()}
        return {n: t[:, order] if n in ("second.weight", "head.weight") else t for n, t in moved.items()}

    straight = network(graph, backend=backend)
    permuted = network(graph, permute(graph.state_dict()), backend=backend)
    assert_close(permuted, permute(straight))


@pytest.mark.parametrize("make", GRAPHS)
def test_only_trainable_entries_are_rewritten(make: Callable[[], NeuronGraph]) -> None:
    graph = make()
    before = {name: tensor.clone() for name, tensor in graph.tensors.items()}
    written = metanetwork()(graph)
    assert list(written) == list(graph.tensors)
    for name, tensor in written.items():
        assert (tensor is graph.tensors[name]) == (name not in graph.trainable)
        assert_close(graph.tensors[name], before[name], rtol=0, atol=0)


@pytest.mark.parametrize("make", GRAPHS)
def test_untrained_it_is_almost_the_identity(make: Callable[[], NeuronGraph]) -> None:
    graph = make()
    written = MetaNetwork(MetaNetworkConfig(layers=3, hidden=12, ratio=0.1))(graph)
    for name in graph.trainable:
        scale = graph.tensors[name].square().mean().sqrt().clamp(min=1e-2)
        assert 0 < (written[name] - graph.tensors[name]).abs().max() < 0.02 * scale


def test_gradients_reach_every_parameter_and_the_input() -> None:
    graph, network = residual_net(), MetaNetwork(MetaNetworkConfig(layers=3, hidden=12))
    tensors = {n: t.clone().requires_grad_(t.is_floating_point()) for n, t in graph.tensors.items()}
    written = network(graph, tensors)
    sum(written[name].sin().sum() for name in graph.trainable).backward()  # type: ignore[union-attr]
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
    assert all(t.grad is not None and t.grad.any() for n, t in tensors.items() if n in graph.trainable)
    assert tensors["first_norm.running_var"].grad is not None


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_rescaled_block_changes_by_the_same_share(factor: float) -> None:
    graph, network = residual_net(), metanetwork()
    scaled = {**graph.tensors, "second.weight": graph.tensors["second.weight"] * factor}
    changes, before = network(graph, scaled), network(graph)
    assert_close(changes["second.weight"] / factor, before["second.weight"], rtol=1e-5, atol=1e-6)
    assert_close(changes["first.weight"], before["first.weight"])


def test_some_steps_of_adam_move_the_output_towards_a_target() -> None:
    """A task that needs the graph: the weights of half of the channels shrink, those of the others stay."""
    graph, network = residual_net(width=8), MetaNetwork(MetaNetworkConfig(layers=2, hidden=16, ratio=0.1))
    target = graph.tensors["second.weight"].clone()
    target[target.flatten(1).norm(dim=1).argsort()[:4]] *= 0.5
    target *= graph.tensors["second.weight"].norm() / target.norm()  # the scale of a block is kept
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(50):
        loss = (network(graph)["second.weight"] - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_models_own_dtype_is_kept(dtype: torch.dtype) -> None:
    graph = residual_net()
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in graph.tensors.items()}
    written = metanetwork()(graph, tensors)
    assert all(written[name].dtype == tensors[name].dtype for name in tensors)


def test_one_metanetwork_takes_every_kernel() -> None:
    network = metanetwork()
    for kernel in ((), (7,), (1, 7), (16, 16), (3, 3, 3), (2, 3, 3, 3)):
        table = network.codec.taps_in(kernel)
        assert len(table) == torch.Size(kernel).numel()
        assert torch.pdist(table).min() > 0.1 if len(table) > 1 else True


def test_an_unknown_kernel_is_named() -> None:
    network = metanetwork(codec="per-kernel", kernels=((), (3, 3)))
    with pytest.raises(InputError, match=r"(?s)no codec.*expected: 1, 3x3\n.*got: 2x2"):
        network(residual_net())


def test_all_faults_of_a_configuration_are_named() -> None:
    with pytest.raises(InputError, match=r"layers ≥ 1; hidden ≥ 2; ratio > 0"):
        MetaNetworkConfig(layers=0, hidden=1, ratio=0.0)
    with pytest.raises(InputError, match="kernels with codec per-kernel"):
        MetaNetworkConfig(codec="per-kernel")


def test_parts_make_the_same_metanetwork() -> None:
    network = metanetwork(codec="per-kernel", kernels=KERNELS)
    again = MetaNetwork.from_parts(*network.to_parts())
    assert again.config == network.config
    assert_close(again(mlp()), network(mlp()), rtol=0, atol=0)


def test_parts_of_something_else_are_refused() -> None:
    tensors, document = metanetwork().to_parts()
    with pytest.raises(CorruptFileError, match="does not describe a metanetwork"):
        MetaNetwork.from_parts({}, document)
    with pytest.raises(CorruptFileError, match="not a valid description of a metanetwork"):
        MetaNetwork.from_parts(tensors, {"config": {"depth": 3}})


def test_a_file_holds_the_same_metanetwork(tmp_path: Path) -> None:
    network, path = metanetwork(), tmp_path / "metanet.safetensors"
    network.save(path, {"metrics": {"epoch": 3}}, {"graph": "0" * 64})
    document = read_artifact(path, "metanetwork").document
    assert (document["metrics"], document["config"]["hidden"]) == ({"epoch": 3}, 12)
    again = MetaNetwork.load(path)
    assert again.config == network.config
    assert_close(again(mlp()), network(mlp()), rtol=0, atol=0)


@pytest.mark.parametrize("make", GRAPHS)
def test_backends_agree_on_what_matters(make: Callable[[], NeuronGraph]) -> None:
    graph, network = make(), metanetwork(score_head=True)
    torch.nn.init.normal_(network.codec.importance)  # type: ignore[arg-type]
    ours, oracles = (network.rewrite(graph, backend=backend).importance for backend in ("blocks", "edges"))  # type: ignore[arg-type]
    assert ours is not None
    assert ours.shape == (graph.num_neurons,)
    assert bool(ours.any())
    assert_close(ours, oracles, rtol=1e-5, atol=1e-5)
