from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph import encode
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.models import Architecture, build, list_architectures
from metaprune_cli.pruning.check import check
from metaprune_cli.pruning.masking import mask_tensors, masked_copy
from metaprune_cli.pruning.plan import make_plan
from metaprune_cli.pruning.surgery import apply_plan

EXAMPLES = {
    "mlp": 30,
    "residual": 30,
    "vit": 8,
    "resnet8": 10,
    "resnet18": 4,
    "mobilenet_v2": 4,
    "densenet121": 2,
    "squeezenet1_1": 3,
}


def random_plan(graph, seed=0, target=2.0, scope="global"):
    scores = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed))
    return make_plan(graph, scores, target, scope=scope)


@pytest.mark.parametrize("name", EXAMPLES)
def test_small_model_equals_masked_model(traced, name):
    case = traced(name)

    @settings(max_examples=EXAMPLES[name], deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**31), target=st.floats(1.1, 1.8), scope=st.sampled_from(["global", "family"]))
    def holds(seed, target, scope):
        plan = random_plan(case.graph, seed, target, scope)
        small = apply_plan(case.model, case.graph, plan, case.inputs)
        found = check(case.model, small, case.graph, plan, case.inputs)
        assert found.comparable
        assert found.error is not None
        assert found.error < 1e-12
        assert sum(p.numel() for p in small.parameters()) == plan.params_after
        assert count_macs(small, case.inputs) == plan.macs_after

    holds()


@pytest.mark.parametrize("name", [name for name in list_architectures() if name.startswith("cifar:")])
def test_small_model_equals_masked_model_over_the_registry(name):
    torch.manual_seed(0)
    arguments = {"num_classes": 4, "in_channels": 1, "image_size": 8, "width": 0.5}
    model, inputs = build(Architecture(name, arguments, None)).eval(), torch.randn(1, 1, 8, 8)
    graph = encode(model, inputs)
    plan = random_plan(graph, target=1.5)
    small = apply_plan(model, graph, plan, inputs)
    found = check(model, small, graph, plan, inputs)
    assert found.error < 1e-12
    assert count_macs(small, inputs) == plan.macs_after


def test_surgery_changes_nothing_but_shapes():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double().train()
    model[0].weight.requires_grad_(False)
    graph = encode(model, torch.randn(1, 5, dtype=torch.float64))
    before = copy.deepcopy(model.state_dict())
    small = apply_plan(model, graph, random_plan(graph), torch.randn(1, 5, dtype=torch.float64))
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.training
    assert small.training
    assert not small[0].weight.requires_grad
    assert small[3].weight.requires_grad
    assert small[0].weight.dtype == torch.float64
    assert small[0].out_features == small[1].num_features == small[3].in_features == len(small[0].weight)


def test_surgery_slices_the_models_weights_not_the_graphs(traced):
    case = traced("mlp")
    other = copy.deepcopy(case.model)
    nn.init.constant_(other[0].weight, 7.0)
    assert (apply_plan(other, case.graph, random_plan(case.graph), case.inputs)[0].weight == 7).all()


def test_a_small_model_trains(traced):
    case = traced("residual")
    small = apply_plan(case.model, case.graph, random_plan(case.graph), case.inputs).train()
    small(torch.randn(2, 3, 7, 7)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_masking_is_differentiable_and_stops_nan(traced):
    case = traced("mlp")
    kept = random_plan(case.graph).kept
    tensors = {name: t.clone() for name, t in case.model.state_dict().items()}
    lost = mask_tensors(case.graph, {"0.weight": torch.ones(6, 5)}, kept)["0.weight"] == 0
    tensors["0.weight"][lost] = torch.nan
    tensors["0.weight"].requires_grad_()
    masked = mask_tensors(case.graph, tensors, kept)
    assert masked["0.weight"].isfinite().all()
    assert masked["3.bias"] is tensors["3.bias"]
    masked["0.weight"].sum().backward()
    assert_close(tensors["0.weight"].grad, (~lost).float())


def test_masking_twice_is_masking_once(traced):
    case = traced("residual")
    kept = random_plan(case.graph).kept
    once = mask_tensors(case.graph, case.model.state_dict(), kept)
    assert_close(mask_tensors(case.graph, once, kept), once, rtol=0, atol=0)
    assert_close(masked_copy(case.model, case.graph, kept).state_dict(), once, rtol=0, atol=0, check_stride=False)


def test_a_wrong_small_model_is_caught(traced):
    case = traced("mlp")
    plan = random_plan(case.graph)
    small = apply_plan(case.model, case.graph, plan, case.inputs)
    with torch.no_grad():
        small[3].weight.mul_(1.01)
    with pytest.raises(NumericsError, match=r"(?s)does not compute what the masked original.*at most 0.0001"):
        check(case.model, small, case.graph, plan, case.inputs)
    with torch.no_grad():
        small[3].weight.fill_(torch.nan)
    with pytest.raises(NumericsError, match="got: nan"):
        check(case.model, small, case.graph, plan, case.inputs)


def test_a_small_model_with_another_output_shape_is_caught(traced):
    case = traced("mlp")
    with pytest.raises(NumericsError, match="shapes of the pruned model's outputs have changed"):
        check(case.model, nn.Linear(5, 2), case.graph, random_plan(case.graph), case.inputs)
