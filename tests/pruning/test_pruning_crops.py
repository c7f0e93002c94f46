"""Crops: any widths of a model, cut and run without asking whether the class follows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from metaprune_cli.graph import encode
from metaprune_cli.graph.slicing import masks, slice_tensors
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.crops import Crops, UnfitError
from metaprune_cli.pruning.surgery import without

MODELS = ["mlp", "residual", "vit", "resnet8", "resnet18", "mobilenet_v2", "densenet121", "squeezenet1_1"]
BY_CLASS = [name for name in MODELS if name != "vit"]


def random_kept(graph, seed, prefix=False):
    generator = torch.Generator().manual_seed(seed)
    units = graph.units
    kept = torch.ones(units.num_units, dtype=torch.bool)
    for family in units.families:
        free = family.units[units.prunable[family.units]]
        fewest = 0 if len(free) < len(family.units) else 1
        if len(free):
            stay = int(torch.randint(fewest, len(free) + 1, (), generator=generator))
            order = torch.arange(len(free)) if prefix else torch.randperm(len(free), generator=generator)
            kept[free[order[stay:]]] = False
    return kept


@pytest.fixture(scope="module")
def cropped():
    made = {}

    def of(case, name, route="auto"):
        if (name, route) not in made:
            made[name, route] = Crops.of(case.model, case.graph, case.inputs, route)
        return made[name, route]

    return of


@pytest.mark.parametrize("prefix", [False, True], ids=["scattered", "prefix"])
@pytest.mark.parametrize("name", MODELS)
def test_crops_are_the_slices_bit_for_bit(traced, cropped, name, prefix):
    case = traced(name)
    crops = cropped(case, name)
    for seed in range(3):
        kept = random_kept(case.graph, seed, prefix)
        found, expected = crops.tensors(kept), slice_tensors(case.graph, kept)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[entry], tensor) for entry, tensor in expected.items())


@pytest.mark.parametrize("name", MODELS)
def test_borrowed_network_is_what_removal_leaves(traced, cropped, name):
    case = traced(name)
    crops = cropped(case, name)
    for seed in (0, 1, 0):  # smaller, wider and back: attributes follow in both directions
        kept = random_kept(case.graph, seed)
        small = without(case.model, case.graph, kept, case.inputs, route=crops.route)
        inputs = torch.randn(4, *case.inputs.shape[1:], generator=torch.Generator().manual_seed(seed))
        for training in (False, True):
            if training and name in ("squeezenet1_1",):  # dropout draws
                continue
            borrowed = crops.borrowed(kept, {n: t.clone() for n, t in crops.tensors(kept).items()}).train(training)
            torch.manual_seed(0)
            found = borrowed(inputs)
            torch.manual_seed(0)
            assert_close(found, small.train(training)(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["residual", "vit", "mobilenet_v2"])
def test_network_of_its_own_is_what_removal_leaves(traced, cropped, name):
    case = traced(name)
    crops, kept = cropped(case, name), random_kept(case.graph, 5)
    found = crops.run(kept)
    expected = without(case.model, case.graph, kept, case.inputs, route=crops.route)
    assert_close(found(case.inputs), expected(case.inputs))
    before = {entry: tensor.clone() for entry, tensor in case.model.state_dict().items()}
    with torch.no_grad():
        for tensor in found.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[entry], tensor) for entry, tensor in case.model.state_dict().items())


def test_macs_of_the_cropped_network_are_the_closed_form(traced, cropped):
    for name in BY_CLASS:
        case = traced(name)
        kept = random_kept(case.graph, 11)
        assert count_macs(cropped(case, name).run(kept), case.inputs) == Cost.of(case.graph).macs(kept)


def test_all_units_are_the_whole_model_bit_for_bit(traced, cropped):
    case = traced("resnet8")
    crops = cropped(case, "resnet8")
    kept = torch.ones(case.graph.units.num_units, dtype=torch.bool)
    assert torch.equal(crops.borrowed(kept, crops.tensors(kept)).eval()(case.inputs), case.model(case.inputs))


def test_gradients_reach_what_was_cropped_and_nothing_else(traced, cropped):
    case = traced("resnet8")
    crops, kept = cropped(case, "resnet8"), random_kept(case.graph, 2)
    leaves = {
        name: tensor.clone().requires_grad_(name in case.graph.trainable) for name, tensor in case.graph.tensors.items()
    }
    crops.borrowed(kept, crops.tensors(kept, leaves)).eval()(case.inputs).sum().backward()
    gone = masks(case.graph, kept)
    assert gone
    for name, mask in gone.items():
        if name in case.graph.trainable:
            assert not leaves[name].grad[~mask].any()
    assert any(bool(leaves[name].grad.any()) for name in case.graph.trainable)


def test_a_program_serves_where_the_class_does_not(traced, cropped):
    case = traced("residual")
    crops, kept = cropped(case, "residual", "program"), random_kept(case.graph, 3)
    small = without(case.model, case.graph, kept, case.inputs)
    assert crops.route == "program"
    assert_close(crops.borrowed(kept, crops.tensors(kept)).eval()(case.inputs), small(case.inputs))


def test_copies_do_not_share_the_module_that_is_borrowed(traced, cropped):
    case = traced("mlp")
    crops = cropped(case, "mlp")
    other = copy.deepcopy(crops)
    kept = random_kept(case.graph, 0)
    assert crops.borrowed(kept, crops.tensors(kept)) is not other.borrowed(kept, other.tensors(kept))


def test_classes_that_keep_widths_as_numbers_follow_by_value():
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = 12
            self.into, self.out = nn.Linear(5, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.out(self.into(x).relu().view(-1, self.width))

    model, inputs = Heads().eval(), torch.randn(1, 5)
    graph = encode(model, inputs)
    crops = Crops.of(model, graph, inputs)
    assert crops.route == "class"
    for seed in range(3):
        kept = random_kept(graph, seed)
        small = crops.borrowed(kept, crops.tensors(kept)).eval()
        assert small.width == int(kept[graph.units.families[-1].units].sum()) or small.width == small.into.weight.size(
            0
        )
        assert_close(small(inputs), without(model, graph, kept, inputs, route="auto")(inputs))
        assert crops.run(kept).width == small.into.weight.size(0)


def test_a_class_that_cannot_follow_is_refused_by_name(traced):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(5, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.out(self.into(x).relu().view(-1, 12))

    model, inputs = Fixed().eval(), torch.randn(1, 5)
    graph = encode(model, inputs)
    with pytest.raises(UnfitError, match="cannot take all of these widths") as error:
        Crops.of(model, graph, inputs, "class")
    assert "breaks the program" in error.value.details["got"]
    assert Crops.of(model, graph, inputs).route == "program"
