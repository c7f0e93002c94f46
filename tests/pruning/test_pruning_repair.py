from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from metaprune_cli.api.prune import prune
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph import encode
from metaprune_cli.pruning import make_plan
from metaprune_cli.pruning.plan import Plan
from metaprune_cli.pruning.repair import Original, _Fitting, repaired
from metaprune_cli.pruning.ridge import fitted
from metaprune_cli.pruning.surgery import apply_plan

HOW = ["bn", "bias", "least-squares"]


def pruned(case, speedup=1.5):
    scores = torch.rand(case.graph.units.num_units, generator=torch.Generator().manual_seed(1))
    plan = make_plan(case.graph, scores, speedup)
    return plan, apply_plan(case.model, case.graph, plan, case.inputs)


def images_for(case, n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = case.inputs.shape[1:]
    if len(shape) < 3:
        return torch.randn(n, *shape, generator=generator)
    coarse = torch.randn(n, shape[0], 3, 3, generator=generator)
    return nn.functional.interpolate(coarse, shape[1:], mode="bilinear")


def error(small, model, images):
    with torch.no_grad():
        truth = model(images)
        return float((small(images) - truth).norm() / (truth - truth.mean(0)).norm())


@pytest.mark.parametrize("name", ["residual", "resnet8", "mobilenet_v2", "vit"])
def test_what_is_repaired_is_closer_to_the_original_on_other_inputs(traced, name):
    case = traced(name)
    plan, small = pruned(case)
    seen, unseen = images_for(case), images_for(case, seed=1)
    errors = [error(small, case.model, unseen)]
    for how in HOW:
        better, layers = repaired(small, case.model, case.graph, plan.kept, seen, how)
        errors.append(error(better, case.model, unseen))
        assert all(layer.after <= layer.before for layer in layers if layer.before is not None)
    assert errors[3] < 0.8 * errors[0]
    if name == "vit":  # the others' statistics are drawn, not measured: to measure them makes another model
        assert errors[3] < errors[2] < errors[0]


def test_redundant_units_are_made_up_for_exactly():
    """Two equal halves: what is lost with the one, the other can do alone."""
    torch.manual_seed(0)
    half = nn.Linear(5, 4)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model[0].load_state_dict({name: torch.cat([t, t]) for name, t in half.state_dict().items()})
    graph = encode(model, torch.randn(1, 5))
    start = next(layer.start for layer in graph.layers if layer.name == "0")
    scores = torch.ones(graph.units.num_units)
    scores[graph.units.unit_of[start + 4 : start + 8]] = 0
    plan = make_plan(graph, scores, 2.0)
    small = apply_plan(model, graph, plan, torch.randn(1, 5))
    x = torch.randn(256, 5)
    better, _ = repaired(small, model, graph, plan.kept, x, "least-squares")
    assert error(small, model, x) > 0.3
    assert error(better, model, x) < 0.01


def test_the_bias_takes_up_the_mean_that_is_lost():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    graph = encode(model, torch.randn(1, 3))
    scores = torch.rand(graph.units.num_units)
    plan = make_plan(graph, scores, 1.5)
    small = apply_plan(model, graph, plan, torch.randn(1, 3))
    x = torch.randn(128, 3)
    better, layers = repaired(small, model, graph, plan.kept, x, "bias")
    assert_close(better[2].weight, small[2].weight)
    assert_close(better(x).mean(0), model(x).mean(0))
    assert [layer.reason for layer in layers] == ["nothing was lost", None]


def test_running_statistics_are_those_of_the_inputs(traced):
    case = traced("mlp")
    plan, small = pruned(case, 1.2)
    x = torch.randn(200, 5)
    better, layers = repaired(small, case.model, case.graph, plan.kept, x, "bn")
    with torch.no_grad():
        entering = better[0](x)
    assert_close(better[1].running_mean, entering.mean(0))
    assert_close(better[1].running_var, entering.var(0))
    assert layers == ()


def test_nothing_that_was_given_is_changed(traced):
    case = traced("residual")
    plan, small = pruned(case)
    before = copy.deepcopy(small.state_dict()), copy.deepcopy(case.model.state_dict())
    small.train()
    repaired(small, case.model, case.graph, plan.kept, images_for(case), "least-squares")
    assert small.training
    assert not case.model.training
    for old, new in zip(before, (small.state_dict(), case.model.state_dict()), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_the_same_repair_twice_gives_the_same_bits(traced):
    case = traced("resnet8")
    plan, small = pruned(case)
    first, second = (
        repaired(small, case.model, case.graph, plan.kept, images_for(case), "least-squares")[0].state_dict()
        for _ in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("how", ["bias", "least-squares"])
@pytest.mark.parametrize("name", ["residual", "vit"])
def test_what_the_original_did_is_taken_down_once_for_any_number_of_smaller_models(traced, name, how):
    case = traced(name)
    images = images_for(case)
    original = Original.of(case.model, images)
    for speedup in (1.5, 2.0, 1.5):
        plan, small = pruned(case, speedup)
        given = (small, case.model, case.graph, plan.kept, images, how)
        (afresh, layers), (again, same) = repaired(*given), repaired(*given, original=original)
        assert layers == same
        for name_, tensor in afresh.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name_]), name_


def test_a_layer_that_is_used_twice_is_left_alone_and_said_to_be():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.again, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.again(self.again(self.stem(x).relu()).relu()))

    model = Twice().eval()
    graph = encode(model, torch.randn(1, 4))
    plan = make_plan(graph, torch.rand(graph.units.num_units), 1.3)
    small = apply_plan(model, graph, plan, torch.randn(1, 4))
    better, layers = repaired(small, model, graph, plan.kept, torch.randn(64, 4), "least-squares")
    assert {layer.param: layer.reason for layer in layers}["again.weight"] == "it is used more than once"
    assert torch.equal(better.again.weight, small.again.weight)


def test_weights_laid_out_channels_last_are_fitted_alike(traced):
    case = traced("residual")
    plan, small = pruned(case)
    images = images_for(case)
    usual, _ = repaired(small, case.model, case.graph, plan.kept, images, "least-squares")
    model = copy.deepcopy(case.model).to(memory_format=torch.channels_last)
    other, _ = repaired(small, model, case.graph, plan.kept, images, "least-squares")
    assert_close(other(images), usual(images), rtol=1e-3, atol=1e-4)


def test_activations_that_are_not_finite_are_named(traced):
    case = traced("residual")
    plan, small = pruned(case)
    with pytest.raises(NumericsError, match=r"not finite, so the layer cannot be repaired(.|\n)*\.weight"):
        repaired(small, case.model, case.graph, plan.kept, torch.full((4, 3, 7, 7), torch.nan), "bias")


def test_without_inputs_a_repair_says_what_it_needs(traced):
    case = traced("mlp")
    with pytest.raises(InputError, match=r"repair bias needs inputs(.|\n)*--repair none"):
        prune(case.model, case.inputs, speedup=1.2, repair="bias")


def test_pruning_in_one_call_repairs(traced):
    case = traced("resnet8")
    images = images_for(case)
    plain = prune(case.model, case.inputs, speedup=2.0, graph=case.graph)
    better = prune(case.model, case.inputs, speedup=2.0, graph=case.graph, repair="least-squares", repair_inputs=images)
    assert isinstance(better.plan, Plan)
    assert better.report["check"]["error"] < 1e-4, "the removal is checked before the repair"
    assert better.report["repair"]["how"] == "least-squares"
    assert error(better.model, case.model, images) < error(plain.model, case.model, images)


def test_a_fit_that_helps_nobody_else_is_not_made():
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(1, 40, n, generator=generator) for n in (30, 5))
    held = torch.arange(40) % 4 == 0
    assert fitted(x, noise, held, centred=True) is None
    assert fitted(x, torch.zeros(1, 40, 5), held, centred=True) is None


@pytest.mark.parametrize("rows", [20, 200])
def test_a_linear_truth_is_found_in_either_system(rows):
    """With fewer rows than unknowns, the truth lies in what the rows span."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(1, 6, 50, generator=generator)
    x = torch.randn(1, rows, 6, generator=generator) @ basis
    y = x @ torch.randn(1, 50, 3, generator=generator) + 2.0
    fit = fitted(x, y, torch.arange(rows) % 4 == 0, centred=True)
    assert fit is not None
    assert_close(x.double() @ fit.change + fit.shift, y.double(), rtol=0.05, atol=0.5)


@pytest.mark.parametrize("how", HOW)
def test_statistics_are_those_of_all_images(traced, how, monkeypatch):
    """Which memory format a model takes is found out with one image, before anything is watched."""
    case = traced("resnet8")
    plan, small = pruned(case)
    seen, statistics = [], _Fitting.statistics

    def watched(self, x, *rest):
        seen.append(len(x))
        statistics(self, x, *rest)

    monkeypatch.setattr(_Fitting, "statistics", watched)
    repaired(small, case.model, case.graph, plan.kept, images_for(case), how)
    assert set(seen) == {64}


class Branch(nn.Module):
    """What enters, and what a layer makes of it, joined somehow."""

    def __init__(self, branch, join):
        super().__init__()
        self.branch, self.join = branch, join

    def forward(self, x):
        return self.join(x, self.branch(x))


class Scale(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(*shape) + 0.5)

    def forward(self, x):
        return self.gamma * x


class Move(nn.Module):
    def __init__(self, *order):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(*self.order)


def conv(width=8):
    return nn.Conv2d(width, width, 3, padding=1, bias=False)


def written_to(x, y):
    y += x
    return y


def seen_elsewhere(x, y):
    """The branch's outputs are read before they are added to."""
    return (x + y) * y.mean((2, 3), keepdim=True).sigmoid()


def twice(x, y):
    return x.roll(1, 0) + (x + y)


JOINED = {
    "added": ([conv(), nn.ReLU(), conv()], torch.add),
    "added in place": ([conv(), nn.ReLU(), conv()], written_to),
    "subtracted": ([conv(), nn.ReLU(), nn.Conv2d(8, 8, 1)], torch.sub),
    "a multiple": ([conv(), nn.ReLU(), conv()], lambda x, y: torch.add(x, y, alpha=-0.3)),
    "normalised": ([conv(), nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.BatchNorm2d(8)], torch.add),
    "normalised after the sum": (
        [nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.BatchNorm2d(8), nn.ReLU(), conv()],
        torch.add,
    ),
    "scaled": ([conv(), nn.ReLU(), conv(), Scale(8, 1, 1)], torch.add),
    "depthwise": ([conv(), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8)], torch.add),
    "channels last": (
        [conv(), Move(0, 2, 3, 1), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), Scale(8), Move(0, 3, 1, 2)],
        torch.add,
    ),
    "two sums": ([conv(), nn.ReLU(), conv()], twice),
}


def residual(layers, join):
    """A network of two such blocks, with statistics that are some."""
    torch.manual_seed(0)
    blocks = [Branch(nn.Sequential(*copy.deepcopy(layers)), join) for _ in range(2)]
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.1, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def halved(model):
    x = torch.randn(1, 3, 6, 6)
    graph = encode(model, x)
    plan = make_plan(graph, torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(0)), 1.6)
    return graph, plan.kept, apply_plan(model, graph, plan, x)


def summed(original):
    """The layers that are fitted to a sum."""
    return {param for (param, _), target in original.targets.items() if target.stage}


@pytest.mark.parametrize("name", JOINED)
def test_the_last_layer_of_a_branch_makes_up_for_the_sum(name, monkeypatch):
    model = residual(*JOINED[name])
    graph, kept, small = halved(model)
    images = torch.randn(128, 3, 6, 6)
    original = Original.of(model, images)
    assert len(summed(original)) == 2
    totals, fit_sum = [], _Fitting.added

    def noted(self, term, total):
        fit_sum(self, term, total)
        if self.original.targets[self.parts.key(term.made)].stage == term.stage:
            totals.append(total)

    monkeypatch.setattr(_Fitting, "added", noted)
    better, layers = repaired(small, model, graph, kept, images, "least-squares", original=original)
    again = []
    handles = [block.register_forward_hook(lambda *_args: again.append(_args[2])) for block in list(better)[1:3]]
    better(images)
    [handle.remove() for handle in handles]
    for total, computed in zip(totals, again, strict=True):  # what was changed is what is computed
        assert_close(total, computed, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(Original, "settle", lambda *_: None)
    alone = Original.of(model, images)
    assert not summed(alone)
    without, _ = repaired(small, model, graph, kept, images, "least-squares", original=alone)
    assert sum(layer.after is not None for layer in layers) >= 4
    assert error(better, model, images) < error(without, model, images) * 1.02


def test_a_layer_is_not_changed_after_something_else_has_seen_what_it_gave():
    model = residual([conv(), nn.ReLU(), conv()], seen_elsewhere)
    assert not summed(Original.of(model, torch.randn(16, 3, 6, 6)))


@pytest.mark.parametrize("name", ["residual", "vit"])
def test_a_program_adds_up_what_its_class_does(traced, name, monkeypatch):
    case = traced(name)
    by = {}
    fit_sum = _Fitting.added

    def noted(self, term, total):
        if self.original.targets[self.parts.key(term.made)].stage:
            by[route].add(term.made.param)
        fit_sum(self, term, total)

    monkeypatch.setattr(_Fitting, "added", noted)
    for route in ("class", "program"):
        by[route] = set()
        prune(case.model, case.inputs, speedup=1.5, repair="least-squares", repair_inputs=images_for(case), route=route)
    assert by["class"] == by["program"] != set()
