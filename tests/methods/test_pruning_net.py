"""The PruningNet: weights for any widths, in every form, for every kind of layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from metaprune_cli.config import PruningNetSettings, PruningRule
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph import encode
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.methods.pruning_net.encoding import Encoding
from metaprune_cli.methods.pruning_net.files import check_structure
from metaprune_cli.methods.pruning_net.generator import MEMORY, form_for, memory_of
from metaprune_cli.methods.pruning_net.network import PruningNet
from metaprune_cli.methods.pruning_net.sampling import BAND, Sampler
from metaprune_cli.methods.pruning_net.training import untrained
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.crops import Crops
from metaprune_cli.pruning.ranking import plain_limits
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.surgery import without
from metaprune_cli.pruning.width_space import WidthSpace
from metaprune_cli.tasks import find_task

FORMS, ENCODINGS = ("full", "factored", "shared"), ("own", "neighbours", "whole")


class Mixed(nn.Module):
    """Depthwise, grouped and plain convolutions, a residual stream, a flattened classifier, one matrix used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.expand, self.depthwise = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.project, self.grouped = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.again = nn.Conv2d(12, 8, 1)
        self.again.weight = self.project.weight
        self.head = nn.Linear(16 * 4, 4)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.project(self.depthwise(self.expand(x).relu()))
        x = x + self.again(self.expand(x).relu())
        return self.head(nn.functional.adaptive_avg_pool2d(self.grouped(x).relu(), 2).flatten(1))


class Attends(nn.Module):
    """A packed projection, of which queries, keys and values are slices, in heads."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.qkv, self.out, self.end = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.into(x)
        q, k, v = (part.view(*x.shape[:2], 2, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).flatten(2))
        return self.end(x.mean(1))


CASES = {
    "mixed": (Mixed, (1, 3, 7, 7)),
    "attention": (Attends, (1, 5, 6)),
    "resnet8": (lambda: build(Architecture("cifar:resnet8", {"width": 0.5, "image_size": 8})), (1, 3, 8, 8)),
}


@pytest.fixture(scope="module")
def cases():
    made = {}
    for name, (builder, shape) in CASES.items():
        torch.manual_seed(0)
        model, inputs = builder().eval(), torch.randn(shape)
        graph = encode(model, inputs)
        space = WidthSpace.of(graph, plain_limits(graph.units, 0.9))
        made[name] = model, graph, inputs, space, Crops.of(model, graph, inputs)
    return made


def net_of(case, **settings) -> PruningNet:
    model, graph, _, space, crops = case
    return untrained(model, graph, space, copy.deepcopy(crops), PruningNetSettings(**settings))


def stirred(net: PruningNet) -> PruningNet:
    """With directions as after some training."""
    torch.manual_seed(1)
    for parameter in net.generator.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def random_genes(space, count=3):
    generator = torch.Generator().manual_seed(5)
    return [space.uniform(generator) for _ in range(count)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_a_trained_start_is_the_model_bit_for_bit(cases, name, form):
    model, _, inputs, space, _ = cases[name]
    net = net_of(cases[name], generator=form).eval()
    for genes in (space.whole(), *random_genes(space)):
        made = net.generate(space.kept(genes))
        assert all(torch.equal(made[entry], tensor) for entry, tensor in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(net.network(space.whole())(inputs), model(inputs))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_cropped_weights_are_slices_of_generated_ones(cases, name, form, encoding):
    _, graph, inputs, space, crops = cases[name]
    net = stirred(net_of(cases[name], generator=form, encoding=encoding)).eval()
    for genes in random_genes(space):
        kept = space.kept(genes)
        with torch.no_grad():
            made = net.generate(kept)
        cropped, expected = net.crops.tensors(kept, made), slice_tensors(graph.with_tensors(made), kept)
        assert all(torch.equal(cropped[entry], tensor) for entry, tensor in expected.items())
        small = net.network(genes)
        assert count_macs(small, inputs) == Cost.of(graph).macs(kept)
        model = copy.deepcopy(cases[name][0])
        model.load_state_dict(made)
        again = without(model, graph, kept, inputs, route=crops.route)
        with torch.no_grad():
            assert_close(small(inputs), again(inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_forms_are_what_their_equations_say(cases, name):
    model, graph, _, space, _ = cases[name]
    kept = space.kept(random_genes(space, 1)[0])
    for form in ("full", "factored"):
        net = stirred(net_of(cases[name], generator=form))
        encoded = net.generator.encoding.of(kept)
        expected = {entry: tensor.clone() for entry, tensor in model.state_dict().items()}
        for number, block in enumerate(net.generator.blocks):
            shares = (net.generator.slope[number] @ encoded[number] + net.generator.offset[number]).relu()
            parts = net.generator._of(number)
            if form == "full":
                change = sum(h * a.view(block.size) for h, a in zip(shares, parts[0], strict=True))
            else:
                change = torch.einsum("k,gok,gki,kt->goit", shares, *parts)
            region = expected[block.param].view(-1).as_strided(block.size, block.stride, block.offset)
            region += change.detach()
        made = net.generate(kept)
        for entry in {block.param for block in graph.blocks}:
            assert_close(made[entry].detach(), expected[entry])


def test_encodings_are_fractions_of_what_is_left(cases):
    _, graph, _, space, _ = cases["mixed"]
    blocks = graph.blocks
    whole = torch.ones(graph.units.num_units, dtype=torch.bool)
    kept = space.kept(space.smallest())
    for name in ENCODINGS:
        encoding = Encoding(graph.units, blocks, name)
        assert encoding.of(whole).shape == (len(blocks), encoding.length)
        assert bool((encoding.of(whole) == 1).all())
        found = encoding.of(kept)
        assert bool(((found >= 0) & (found <= 1)).all())
    alive = graph.units.alive(kept)
    own = Encoding(graph.units, blocks, "own").of(kept)
    for number, block in enumerate(blocks):
        assert_close(
            own[number], torch.stack([alive[end].float().mean() for end in (block.destinations, block.sources)])
        )


def test_training_runs_the_small_network_on_batch_statistics(cases):
    net = net_of(cases["resnet8"], speedup_max=8.0).train()
    before = {entry: tensor.clone() for entry, tensor in net.base.named_buffers()}
    shapes = []
    torch.manual_seed(0)
    for _ in range(4):
        net(torch.randn(6, 3, 8, 8)).square().sum().backward()
        shapes.append(tuple(net.crops._elastic.module.layer3[0].conv1.weight.shape))
    assert len(set(shapes)) > 1
    assert all(torch.equal(before[entry], tensor) for entry, tensor in net.base.named_buffers())
    assert all(parameter.grad is not None for parameter in net.base.parameters())
    assert all(parameter.grad is not None for parameter in net.generator.directions)


def test_evaluation_takes_the_same_widths_every_time(cases):
    net = stirred(net_of(cases["resnet8"])).eval()
    batch = torch.randn(4, 3, 8, 8)
    first = [net(batch) for _ in range(3)]
    assert not torch.equal(first[0], first[1])
    net.eval()
    assert all(torch.equal(net(batch), before) for before in first)


def test_draws_for_a_budget_cover_it(cases):
    _, graph, _, space, _ = cases["resnet8"]
    cost = Cost.of(graph)
    whole, smallest = (cost.macs(space.kept(genes)) for genes in (space.whole(), space.smallest()))
    generator = torch.Generator().manual_seed(0)
    sampler = Sampler(space, cost, "budget", 4.0)
    found = [whole / cost.macs(space.kept(sampler.draw(generator))) for _ in range(60)]
    assert max(found) <= 4.0 / BAND * 1.2
    assert max(found) > 3
    assert min(found) < 1.4
    far = Sampler(space, cost, "budget", 1e6)
    assert max(whole / cost.macs(space.kept(far.draw(generator))) for _ in range(20)) <= whole / smallest


def test_limits_rules_ties_and_multiples_hold_for_every_draw(cases):
    model, graph, _, _, _ = cases["resnet8"]
    rules = (
        PruningRule("layer1*", ignore=True),
        PruningRule("layer2*conv1*", round_to=4),
        PruningRule("layer3*", tie=True),
    )
    limits = limits_of(graph, rules, 0.7, model=model)
    sampler = Sampler(WidthSpace.of(graph, limits), Cost.of(graph), "uniform")
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        kept = sampler.space.kept(sampler.draw(generator))
        left = torch.tensor([int(kept[family.units].sum()) for family in graph.units.families])
        gone = graph.units.sizes - left
        assert bool((gone <= limits.most).all())
        assert bool(((gone == 0) | (left % limits.multiple == 0)).all())


def test_auto_is_full_as_long_as_it_fits(cases):
    _, graph, _, _, _ = cases["resnet8"]
    weights = sum(graph.tensors[entry].numel() for entry in {block.param for block in graph.blocks})
    assert memory_of(graph, "full", 32) == 3 * 4 * 32 * weights
    assert form_for(graph, 32) == "full"
    hidden = MEMORY // (3 * 4 * weights) + 1
    assert form_for(graph, hidden) == "factored"
    assert memory_of(graph, "shared", 32) == 0


def test_the_rest_of_a_sandwich_learns_from_the_largest(cases):
    net = stirred(net_of(cases["resnet8"], sandwich=True)).train()
    task = find_task(None)
    torch.manual_seed(0)
    output = net(torch.randn(6, 3, 8, 8))
    rest = net.rest_of_sandwich(task)
    assert rest.item() > 0
    rest.backward()
    assert output.grad_fn is not None


def test_copies_are_alike_and_independent(cases):
    net = stirred(net_of(cases["resnet8"])).eval()
    other = copy.deepcopy(net)
    batch = torch.randn(4, 3, 8, 8)
    assert torch.equal(net(batch), other(batch))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    net.eval()
    assert bool(net(batch).any())


def test_a_net_of_another_structure_is_refused(cases):
    net = net_of(cases["resnet8"])
    with pytest.raises(InputError, match="a different structure"):
        check_structure(net, cases["mixed"][1], "a.safetensors")
    check_structure(net, cases["resnet8"][1], None)


def test_a_number_that_is_none_is_named(cases):
    from metaprune_cli.data import TensorSplit
    from metaprune_cli.methods.pruning_net.training import train
    from metaprune_cli.training.progress import Silence

    net = net_of(cases["resnet8"])
    with torch.no_grad():
        net.base.layer2[0].conv1.weight[0] = torch.nan
    samples = TensorSplit(torch.randn(12, 3, 8, 8), torch.randint(0, 10, (12,)))
    with pytest.raises(NumericsError, match=r"training loss is nan[\s\S]*base\.layer2\.0\.conv1\.weight"):
        train(
            net,
            samples,
            PruningNetSettings(epochs=1, sampling="uniform"),
            task=find_task(None),
            batch_size=6,
            augment=False,
            device=torch.device("cpu"),
            progress=Silence(),
        )
