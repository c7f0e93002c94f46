from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from metaprune_cli.errors import NumericsError, TargetError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.pruning.sparsity import Zeroing, ZeroPlan, make_zero_plan, zero_tensors, zeroed_copy
from metaprune_cli.pruning.sparsity.selection import count_of, largest_of_groups, smallest

MODELS = ["mlp", "residual", "vit", "resnet8"]
Traced = Any
Get = Callable[[str], Traced]


def planned(found: Traced, *asked: Any, **more: Any) -> ZeroPlan:
    return make_zero_plan(found.graph, found.model.state_dict(), Zeroing(*asked, **more))


def chosen(plan: ZeroPlan) -> list[str]:
    return [layer.name for layer in plan.layers if layer.skipped is None]


def reasons(plan: ZeroPlan) -> dict[str, str | None]:
    return {layer.name: layer.skipped for layer in plan.layers}


def flat(tensors: dict[str, Tensor], plan: ZeroPlan) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in chosen(plan)])


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.data())
def test_exactly_so_many_go_none_larger_than_one_that_stays_and_of_equal_ones_the_last(
    values: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(values)))
    going = smallest(torch.tensor(values, dtype=torch.float32), count)
    order = sorted(range(len(values)), key=lambda place: (values[place], -place))
    assert sorted(going.nonzero().flatten().tolist()) == sorted(order[:count])


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.data())
def test_n_of_m_keeps_the_n_largest_and_of_equal_ones_the_first(
    kept: int, more: int, rows: int, data: st.DataObject
) -> None:
    group = kept + more
    values = data.draw(st.lists(st.integers(0, 3), min_size=2 * rows * group, max_size=2 * rows * group))
    stays = largest_of_groups(torch.tensor(values, dtype=torch.float32).view(rows, 2 * group), kept, group)
    for mine, those in zip(stays.view(-1, group).tolist(), torch.tensor(values).view(-1, group).tolist(), strict=True):
        best = sorted(range(group), key=lambda place: (-those[place], place))[:kept]
        assert [place for place in range(group) if mine[place]] == sorted(best)


@settings(max_examples=50)
@given(st.integers(1, 999), st.integers(1, 10**6))
def test_a_count_is_never_off_by_one(thousandths: int, total: int) -> None:
    exact = Fraction(thousandths, 1000) * total
    assert count_of(thousandths / 1000, total) == min(round(exact), total - 1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sparsity", [0.3, 0.8, 0.95])
def test_one_threshold_for_all_layers_and_the_count_is_exact(traced: Get, name: str, sparsity: float) -> None:
    found = traced(name)
    plan = planned(found, "unstructured", sparsity)
    kept, magnitudes = flat(dict(plan.masks), plan), flat(found.model.state_dict(), plan).abs()
    assert int((~kept).sum()) == round(Fraction(str(sparsity)) * kept.numel()) == plan.weights - plan.kept
    assert magnitudes[kept].min() >= magnitudes[~kept].max()


def test_by_layer_each_gives_the_same_share(traced: Get) -> None:
    found = traced("residual")
    plan = planned(found, "unstructured", 0.7, scope="family")
    for layer in plan.layers:
        if layer.skipped is None:
            assert layer.weights - layer.kept == round(Fraction("0.7") * layer.weights)


@pytest.mark.parametrize("name", ["residual", "vit", "resnet8"])
@pytest.mark.parametrize("asked", [Zeroing("unstructured", 0.6), Zeroing("n:m"), Zeroing("block", 0.5, tile=(2, 2))])
def test_only_weights_are_touched_and_the_argument_is_not(traced: Get, name: str, asked: Zeroing) -> None:
    found = traced(name)
    before = copy.deepcopy(found.model.state_dict())
    plan = make_zero_plan(found.graph, before, asked)
    after = zeroed_copy(found.model, plan.masks).state_dict()
    for entry, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, before[entry])
        if entry in plan.masks:
            assert torch.equal(after[entry], torch.where(plan.masks[entry], tensor, 0))
        else:
            assert torch.equal(after[entry], tensor)
    assert not any("norm" in entry or "bn" in entry or "bias" in entry or "embed" in entry for entry in plan.masks)


def test_a_convolution_is_grouped_along_its_input_channels_tap_by_tap(traced: Get) -> None:
    found = traced("resnet8")
    plan = planned(found, "n:m", pattern=(1, 4))
    assert reasons(plan)["conv1.weight"] == "inputs of each output: 3, not a multiple of 4"
    for name in chosen(plan):
        groups = plan.masks[name].permute(0, 2, 3, 1).reshape(-1, 4)
        assert bool((groups.sum(1) == 1).all())


def test_a_linear_layer_is_grouped_along_its_inputs_and_torch_can_pack_it(traced: Get) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    plan = make_zero_plan(encode(model, torch.randn(1, 64)), model.state_dict(), Zeroing("n:m"))
    weight = zeroed_copy(model, plan.masks).state_dict()["0.weight"].half()
    packed = sparse_semi_structured_from_dense_cutlass(weight)  # loses what is not 2:4
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(*packed), weight)
    assert [layer.kernel for layer in plan.layers] == ["yes", "10x96 is not a multiple of 32x64"]
    vit = planned(traced("vit"), "n:m")
    packed_qkv = next(mask for name, mask in vit.masks.items() if name.endswith("in_proj_weight"))
    assert bool((packed_qkv.view(-1, 4).sum(1) == 2).all())


def test_a_flattened_feature_map_is_grouped_as_it_lies_in_memory(traced: Get) -> None:
    plan = planned(traced("residual"), "n:m", classifier=True)
    assert bool((plan.masks["head.weight"].view(-1, 4).sum(1) == 2).all())


def test_blocks_go_whole_and_those_of_least_norm(traced: Get) -> None:
    found = traced("resnet8")
    plan = planned(found, "block", 0.5, tile=(4, 2))
    norms, stays = [], []
    for name in chosen(plan):
        weight, mask = (t.permute(0, 2, 3, 1).flatten(1) for t in (found.model.state_dict()[name], plan.masks[name]))
        tiles = mask.unfold(0, 4, 4).unfold(1, 2, 2).flatten(2)
        assert bool((tiles.all(2) == tiles.any(2)).all())
        stays.append(tiles.all(2).flatten())
        norms.append(weight.unfold(0, 4, 4).unfold(1, 2, 2).flatten(2).norm(dim=2).flatten())
    stay, norm = torch.cat(stays), torch.cat(norms)
    assert int((~stay).sum()) == round(stay.numel() / 2)
    assert norm[stay].min() >= norm[~stay].max()


def test_every_layer_left_alone_says_why(traced: Get) -> None:
    assert reasons(planned(traced("residual"), "n:m")) == {
        "stem.weight": "inputs of each output: 3, not a multiple of 4",
        "expand.weight": None,
        "depthwise.weight": "depthwise: each output has one input",
        "project.weight": None,
        "grouped.weight": None,
        "head.weight": "it is the classifier: its outputs are the model's",
    }
    assert reasons(planned(traced("residual"), "block", 0.5, tile=(4, 1)))["depthwise.weight"] == (
        "outputs of each group: 1, not a multiple of 4"
    )
    first = planned(traced("residual"), "unstructured", first=False)
    assert reasons(first)["stem.weight"] == "it is a first layer: its inputs are the model's"
    assert reasons(planned(traced("vit"), "unstructured"))["encoder.pos_embedding"] == (
        "its elements act one by one (position)"
    )


def test_the_same_is_chosen_every_time(traced: Get) -> None:
    found = traced("vit")
    one, two = (planned(found, "block", 0.5).masks for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_where_nothing_fits_every_reason_is_listed(traced: Get) -> None:
    with pytest.raises(TargetError, match=r"nothing to zero[\s\S]*0.weight: no kernel takes it: 6x5[\s\S]*classifier"):
        planned(traced("mlp"), "n:m", pattern=(2, 5), kernel_only=True)


def test_what_is_sparser_already_is_not_called_done(traced: Get) -> None:
    found = traced("resnet8")
    model = zeroed_copy(found.model, planned(found, "unstructured", 0.9).masks)
    sparse = dataclasses.replace(found, model=model)
    with pytest.raises(TargetError, match="zero already"):
        planned(sparse, "unstructured", 0.8)
    further = planned(sparse, "unstructured", 0.95)
    assert further.sparsity == pytest.approx(0.95, abs=1e-4)


def test_a_weight_that_is_not_finite_is_named(traced: Get) -> None:
    found = traced("mlp")
    broken = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    broken["0.weight"][0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"not finite[\s\S]*0\.weight"):
        make_zero_plan(found.graph, broken, Zeroing("unstructured"))


def test_tied_weights_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner = nn.Embedding(32, 16), nn.Linear(16, 16)

        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.linear(self.inner(self.table(tokens)), self.table.weight)

    model = Tied()
    graph: NeuronGraph = encode(model, torch.zeros(1, 3, dtype=torch.int64))
    plan = make_zero_plan(graph, model.state_dict(), Zeroing("unstructured"))
    assert list(plan.masks) == ["inner.weight"]
    assert "table.weight" in reasons(plan)


def test_what_is_gone_feels_the_loss_with_the_slope() -> None:
    weight = torch.tensor([3.0, -1.0], requires_grad=True)
    masks = {"w": torch.tensor([True, False])}
    zeroed = zero_tensors({"w": weight}, masks, slope=0.25)["w"]
    assert zeroed.tolist() == [3.0, 0.0]
    zeroed.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 0.25]
