from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.pruning import make_plan
from metaprune_cli.pruning.criteria import by_unit, differentiable_scores, group_magnitude, unit_scores

CRITERIA = ["group-l1", "group-l2", "bn-scale", "taylor", "random"]


def hidden(graph, scores):
    """The scores of the mlp's hidden neurons, in their order."""
    start = next(layer.start for layer in graph.layers if layer.name == "0")
    return scores[graph.units.unit_of[start : start + 6]]


def gradients_of(case):
    model = copy.deepcopy(case.model)
    model(case.inputs).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("p", [1, 2])
def test_group_magnitude_is_the_mean_over_slices(traced, p):
    case = traced("mlp")
    into, scale, out = case.model[0].weight, case.model[1].weight, case.model[3].weight
    expected = (into.abs().pow(p).sum(1) + scale.abs().pow(p) + out.abs().pow(p).sum(0)) / 3
    magnitude = group_magnitude(case.graph, case.model.state_dict(), p)
    assert_close(hidden(case.graph, magnitude), expected.detach())


def test_group_magnitude_counts_a_depthwise_kernel_once():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 3, groups=2, bias=False), nn.Conv2d(2, 1, 1))
    graph = encode(model, torch.randn(1, 1, 5, 5))
    into, depthwise, out = (module.weight for module in model)
    expected = (into.square().sum((1, 2, 3)) + depthwise.square().sum((1, 2, 3)) + out.square().sum((0, 2, 3))) / 3
    start = next(layer.start for layer in graph.layers if layer.name == "0")
    magnitude = group_magnitude(graph, model.state_dict(), 2)
    assert_close(magnitude[graph.units.unit_of[start : start + 2]], expected.detach())


def test_group_magnitude_lets_gradients_through(traced):
    case = traced("mlp")
    tensors = {name: t.clone().requires_grad_() for name, t in case.graph.tensors.items() if t.is_floating_point()}
    hidden(case.graph, group_magnitude(case.graph, tensors, 2)).sum().backward()
    assert_close(tensors["0.weight"].grad, 2 * tensors["0.weight"].detach() / 3)


def test_group_magnitude_of_half_precision_does_not_overflow(traced):
    case = traced("mlp")
    tensors = {name: (t * 1000).half() for name, t in case.graph.tensors.items()}
    assert group_magnitude(case.graph, tensors, 2).isfinite().all()


@pytest.mark.parametrize("name", ["mlp", "residual", "mobilenet_v2"])
@pytest.mark.parametrize("criterion", ["group-l1", "group-l2", "bn-scale"])
def test_the_best_unit_of_a_family_scores_one(traced, name, criterion):
    case = traced(name)
    scores = unit_scores(case.graph, case.model.state_dict(), criterion)
    for family in case.graph.units.families:
        if family.locked is None:
            assert_close(scores[family.units].max(), torch.tensor(1.0))
    assert (scores >= 0).all()


@pytest.mark.parametrize("criterion", CRITERIA[:4])
def test_permuting_hidden_channels_permutes_the_scores(traced, criterion):
    case = traced("mlp")
    permutation = torch.tensor([3, 0, 5, 1, 4, 2])
    tensors, gradients = dict(case.model.state_dict()), gradients_of(case)
    permuted, permuted_gradients = dict(tensors), dict(gradients)
    for new, old in ((permuted, tensors), (permuted_gradients, gradients)):
        for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
            new[name] = old[name][permutation]
        new["3.weight"] = old["3.weight"][:, permutation]
    before = unit_scores(case.graph, tensors, criterion, gradients=gradients)
    after = unit_scores(case.graph, permuted, criterion, gradients=permuted_gradients)
    assert_close(hidden(case.graph, after), hidden(case.graph, before)[permutation])


def test_taylor_is_the_first_order_change_of_the_loss(traced):
    case = traced("mlp")
    gradients, tensors = gradients_of(case), case.model.state_dict()
    products = {name: gradients[name] * tensors[name] for name in gradients}
    owned = products["0.weight"].sum(1) + products["3.weight"].sum(0)
    owned = (owned + products["0.bias"] + products["1.weight"] + products["1.bias"]).abs()
    scores = unit_scores(case.graph, tensors, "taylor", gradients=gradients)
    assert_close(hidden(case.graph, scores), owned / owned.max())


def test_taylor_without_gradients_says_what_it_needs(traced):
    case = traced("mlp")
    with pytest.raises(InputError, match=r"taylor needs the gradient(.|\n)*choose group-l2"):
        unit_scores(case.graph, case.model.state_dict(), "taylor")
    with pytest.raises(InputError, match=r"none for 0\.bias, 0\.weight"):
        unit_scores(case.graph, case.model.state_dict(), "taylor", gradients={"3.weight": torch.zeros(3, 6)})


def test_bn_scale_is_the_norms_scale_or_the_magnitude_where_there_is_none(traced):
    case = traced("mlp")
    scale = case.model[1].weight.detach().abs()
    assert_close(hidden(case.graph, unit_scores(case.graph, case.model.state_dict(), "bn-scale")), scale / scale.max())
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    graph = encode(plain, torch.randn(1, 4))
    assert_close(unit_scores(graph, plain.state_dict(), "bn-scale"), unit_scores(graph, plain.state_dict(), "group-l1"))


def test_random_scores_follow_the_generator(traced):
    case = traced("mlp")

    def draw(seed):
        return unit_scores(case.graph, case.graph.tensors, "random", generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize("criterion", ["group-l1", "group-l2", "bn-scale"])
def test_a_family_of_zeros_scores_zero(traced, criterion):
    case = traced("mlp")
    zeros = {name: torch.zeros_like(tensor) for name, tensor in case.graph.tensors.items()}
    assert not unit_scores(case.graph, zeros, criterion).any()


def test_what_a_metanetwork_says_weighs_the_magnitudes(traced):
    case = traced("mlp")
    units = case.graph.units
    importance = by_unit(units, torch.randn(case.graph.num_neurons))
    scores = unit_scores(case.graph, case.model.state_dict(), "metanet", importance=importance)
    assert_close(scores, unit_scores(case.graph, case.model.state_dict(), "group-l2") * importance.exp())
    silent = unit_scores(case.graph, case.model.state_dict(), "metanet", importance=torch.zeros(units.num_units))
    assert_close(silent, unit_scores(case.graph, case.model.state_dict(), "group-l2"))


def test_the_mean_over_a_unit_is_that_of_its_neurons(traced):
    graph = traced("residual").graph
    values = torch.randn(graph.num_neurons)
    for unit, mean in enumerate(by_unit(graph.units, values)):
        assert_close(mean, values[graph.units.unit_of == unit].mean())


@pytest.mark.parametrize("importance", [None, torch.zeros(3)])
def test_metanet_without_a_score_head_says_what_it_needs(traced, importance):
    case = traced("mlp")
    with pytest.raises(InputError, match=r"what a method says(.|\n)*score head(.|\n)*choose group-l2"):
        unit_scores(case.graph, case.model.state_dict(), "metanet", importance=importance)


def test_fpgm_is_the_mean_distance_to_the_family(traced):
    case = traced("mlp")
    rows = case.model[0].weight.detach()
    expected = torch.cdist(rows, rows).mean(1)
    scores = unit_scores(case.graph, case.model.state_dict(), "fpgm")
    assert_close(hidden(case.graph, scores), expected / expected.max(), rtol=1e-3, atol=1e-4)


def test_fpgm_finds_the_unit_in_the_middle(traced):
    case = traced("residual")
    tensors = {name: tensor.clone() for name, tensor in case.graph.tensors.items()}
    tensors["expand.weight"][5] = tensors["expand.weight"].mean(0)
    start = next(layer.start for layer in case.graph.layers if layer.name == "expand")
    family = case.graph.units.unit_of[start : start + 12]
    assert int(unit_scores(case.graph, tensors, "fpgm")[family].argmin()) == 5


def test_lamp_divides_by_all_that_is_no_smaller(traced):
    case = traced("mlp")
    magnitude = hidden(case.graph, group_magnitude(case.graph, case.model.state_dict(), 2))
    expected = magnitude / (magnitude[None, :] * (magnitude[None, :] >= magnitude[:, None])).sum(1)
    assert_close(hidden(case.graph, unit_scores(case.graph, case.model.state_dict(), "lamp")), expected)


def test_reductions_and_normalisers_are_what_they_say(traced):
    case = traced("mlp")
    tensors = case.model.state_dict()
    into, out = tensors["0.weight"].square().sum(1), tensors["3.weight"].square().sum(0)
    slices = torch.stack([into, tensors["1.weight"].square(), out])
    for reduction, reduced in (("mean", slices.mean(0)), ("sum", slices.sum(0)), ("max", slices.amax(0))):
        for normaliser, by in (("max", reduced.max()), ("mean", reduced.mean()), ("sum", reduced.sum()), ("none", 1)):
            scores = unit_scores(case.graph, tensors, "group-l2", reduction=reduction, normaliser=normaliser)
            assert_close(hidden(case.graph, scores), reduced / by)


def test_ranks_are_places_in_the_family_and_as_a_global_ranking_take_the_same_share_of_each(traced):
    case = traced("residual")
    scores = unit_scores(case.graph, case.model.state_dict(), "group-l2", normaliser="rank")
    plain = unit_scores(case.graph, case.model.state_dict(), "group-l2")
    for family in case.graph.units.families:
        size = len(family.units)
        assert_close(scores[family.units].sort().values, torch.arange(1, size + 1) / size)
        assert torch.equal(scores[family.units].argsort(), plain[family.units].argsort())
    for speedup in (1.3, 2.0, 3.0):
        ours = make_plan(case.graph, scores, speedup, scope="global", max_ratio=0.95)
        assert torch.equal(ours.kept, make_plan(case.graph, scores, speedup, scope="family", max_ratio=0.95).kept)


def test_a_rank_feels_what_its_magnitude_does(traced):
    graph = traced("residual").graph
    importance = torch.randn(graph.units.num_units).requires_grad_()
    tensors = {name: tensor.clone().requires_grad_(name in graph.trainable) for name, tensor in graph.tensors.items()}
    weights = [tensors[name] for name in sorted(graph.trainable)]
    slopes = []
    for normaliser in ("max", "rank"):
        scores = differentiable_scores(graph, tensors, "metanet", importance, normaliser)
        slopes.append(torch.autograd.grad(scores.sum(), [*weights, importance], allow_unused=True, retain_graph=True))
        torch.testing.assert_close(slopes[-1][-1], scores.detach())
    for smooth, ranked in zip(slopes[0][:-1], slopes[1][:-1], strict=True):
        assert (smooth is None) == (ranked is None)
        assert smooth is None or torch.equal(smooth, ranked)


@pytest.mark.parametrize("criterion", ["obd-c", "hessian", "activation"])
def test_criteria_that_need_data_say_so(traced, criterion):
    with pytest.raises(InputError, match=rf"criterion {criterion} needs data(.|\n)*choose group-l2"):
        unit_scores(traced("mlp").graph, traced("mlp").graph.tensors, criterion)
