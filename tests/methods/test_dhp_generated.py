"""Generated weights: they begin as the model's own, and follow their units wherever these go."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from dhp_networks import EXAMPLES, batch, graph_of, network
from torch import Tensor, nn

from metaprune_cli.config import DhpSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph import decode, encode
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.methods.dhp.generated import Generated
from metaprune_cli.methods.dhp.kernels import Embedded
from metaprune_cli.pruning.plan import select
from metaprune_cli.pruning.scoring import left_of_scores
from metaprune_cli.pruning.surgery import without

SIZES = (0, 8)


def generated(name: str, size: int = 0, *, trained: bool = True) -> Generated:
    settings = DhpSettings(embedding=size)
    return Generated(network(name), graph_of(name), EXAMPLES[name], settings, trained=trained).eval()


def stirred(model: Generated) -> Generated:
    """With other values everywhere, as if it had been trained for long."""
    drawn = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in (*model.entries.parameters(), model.latents):
            parameter += 0.2 * torch.randn(parameter.shape, generator=drawn)
    return model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_trained_start_is_the_model(name: str, size: int) -> None:
    model, whole = generated(name, size), network(name)
    torch.testing.assert_close(model.state(), dict(whole.state_dict()), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model(batch(name)), whole(batch(name)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_another_start_keeps_the_size_of_the_weights(name: str) -> None:
    model, whole = generated(name, trained=False).state(), network(name).state_dict()
    weights = [entry.names[0] for entry in generated(name)._entries]
    ratio = math.sqrt(sum(float(model[n].square().sum()) for n in weights)) / math.sqrt(
        sum(float(whole[n].square().sum()) for n in weights)
    )
    assert 0.3 < ratio < 3
    assert not torch.equal(model[weights[0]], whole[weights[0]])


def test_all_parameters_are_trained_and_none_twice() -> None:
    model = generated("resnet", 8)
    model(batch("resnet")).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    names = {name for name, _ in model.network.named_parameters()}
    assert not names & {name for entry in model._entries for name in entry.names}


@pytest.mark.parametrize("name", ["resnet", "shuffled", "heads"])
def test_both_forms_are_one_function(name: str) -> None:
    large = stirred(generated(name, 8))
    small = generated(name)
    small.latents.data.copy_(large.latents)
    for old, new in zip(large._entries, small._entries, strict=True):
        for before, after in zip(old.blocks, new.blocks, strict=True):
            assert isinstance(before.form, Embedded)
            after.form = before.form.compact()
            if before.own is not None:
                after.own.data.copy_(before.own)
    torch.testing.assert_close(small.state(), large.state(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_generating_commutes_with_removing(name: str) -> None:
    """What the latents and factors of the units that stay generate is what stays of what all of them generate."""
    model, graph = stirred(generated(name)), graph_of(name)
    whole = decode(graph.with_tensors(model.state()), network(name))
    kept = select(graph, model.scores(), 1.5)
    small = without(whole, graph, kept, EXAMPLES[name])
    small_graph = encode(small, EXAMPLES[name])
    cut = Generated(small, small_graph, EXAMPLES[name], DhpSettings(), trained=True)
    left = left_of_scores(model.latents.detach(), graph, kept, small_graph)
    assert left is not None
    cut.latents.data.copy_(left)
    alive = graph.units.alive(kept)
    for old, new in zip(model._entries, cut._entries, strict=True):
        assert old.names == new.names
        for before, after in zip(old.blocks, new.blocks, strict=True):
            ends = alive[before.destinations], alive[before.sources]
            for part in ("slope", "offset"):
                getattr(after.form, part).data.copy_(_cut(getattr(before.form, part).detach(), *ends))
            if before.own is not None:
                after.own.data.copy_(before.own)
    expected = slice_tensors(graph.with_tensors(model.state()), kept)
    found = cut.state()
    for entry in cut._entries:
        torch.testing.assert_close(found[entry.names[0]], expected[entry.names[0]], rtol=1e-5, atol=1e-6)


def _cut(values: Tensor, out: Tensor, into: Tensor) -> Tensor:
    groups = [g for g in range(len(values)) if bool(out[g].any()) and bool(into[g].any())]
    return torch.stack([values[g][out[g]][:, into[g]] for g in groups])


def test_permuted_units_permute_what_is_generated() -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten())
    x = torch.zeros(1, 1, 6, 6)
    graph = encode(net, x)
    model = stirred(Generated(net, graph, x, DhpSettings(), trained=True))
    units = next(family.units for family in graph.units.families if len(family.units) == 6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.latents[units] = model.latents[units[order]]
        for part in ("slope", "offset"):
            for number, dimension in ((0, 1), (1, 2)):
                mine, theirs = (getattr(m.entries[number].blocks[0].form, part) for m in (other, model))
                mine.copy_(theirs.index_select(dimension, order))
    torch.testing.assert_close(other.state()["0.weight"], model.state()["0.weight"][order])
    torch.testing.assert_close(other.state()["3.weight"], model.state()["3.weight"][:, order])
    torch.testing.assert_close(other.scores()[units], model.scores()[units[order]])


def test_a_depthwise_kernel_has_no_square() -> None:
    model = generated("shuffled")
    entry = next(entry for entry in model._entries if entry.names == ("body.1.weight",))
    (block,) = entry.blocks
    assert block.own is not None
    latents = model.neuron_latents().detach()
    torch.testing.assert_close(block.products(2 * latents), 2 * block.products(latents))
    assert [e.names for e in model._entries if any(b.own is not None for b in e.blocks)] == [("body.1.weight",)]


def test_what_is_computed_from_parameters_stays_a_parameter() -> None:
    names = {name for entry in generated("lstm")._entries for name in entry.names}
    assert "out.weight" in names
    assert not any("inner" in name for name in names)


def test_removed_units_are_zero_in_the_pass_and_stay_so_in_copies_and_states() -> None:
    model, graph = stirred(generated("resnet")), graph_of("resnet")
    model.remove_(select(graph, model.scores(), 2.0))
    again = generated("resnet")
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        again(batch("resnet"))  # what is found here must be of use to training as well
    again.train()(batch("resnet")).sum().backward()
    for other in (copy.deepcopy(model), again):
        torch.testing.assert_close(other.generated(), model.generated())
        assert torch.equal(other.kept, model.kept)
    alive = graph.units.alive(model.kept)
    state = model.state()
    for feature in graph.features:
        if feature.kind in ("scale", "shift", "bias"):
            assert not bool(state[feature.name].flatten()[feature.elements][~alive[feature.neurons]].any())
    lost = ~model.kept
    model.latents.grad = None
    model(batch("resnet")).square().sum().backward()
    assert model.latents.grad is not None
    assert not bool(model.latents.grad[lost].any())


class Fixed(nn.Module):
    """Refuses weights that are not its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.layer.weight, nn.Parameter):
            raise TypeError("not mine")
        found: Tensor = self.layer(x)
        return found


@pytest.mark.parametrize(
    ("model", "words"),
    [(Fixed(), "does not run with generated weights"), (nn.PReLU(3), "The model has no weights")],
)
def test_what_cannot_be_generated_is_refused(model: nn.Module, words: str) -> None:
    x = torch.zeros(1, 3)
    with pytest.raises(InputError, match=words):
        Generated(model, encode(model, x), x, DhpSettings(), trained=True)
