from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.config import Criterion, MetaTrainSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.graph.slicing import masks
from metaprune_cli.methods.metanet.learning.objectives import (
    OBJECTIVES,
    Step,
    finetuned,
    pruned,
    random_criterion,
    random_speedup,
    sparsity,
    speedup_at,
)
from metaprune_cli.methods.metanet.learning.zoo import Member, ZooEntry
from metaprune_cli.pruning import mask_tensors, select, unit_scores
from metaprune_cli.pruning.sparsity import Zeroing, make_zero_plan
from metaprune_cli.tasks import Classification

CPU = torch.device("cpu")
SETTINGS = MetaTrainSettings(criterion="group-l2", choice_slope=0.0, speedup_max=3.0)


@pytest.fixture
def step(zoo: list[ZooEntry], train: ImageSplit) -> Step:
    return Step(
        Member.of(zoo[0], CPU),
        Classification(),
        cycle(list(train.batches(50))),
        SETTINGS,
        torch.Generator().manual_seed(0),
    )


def leaves(step: Step) -> dict[str, Tensor]:
    graph = step.member.graph
    return {name: graph.tensors[name].clone().requires_grad_() for name in sorted(graph.trainable)}


def with_settings(step: Step, **changes: object) -> Step:
    return replace(step, settings=replace(SETTINGS, **changes))  # type: ignore[arg-type]


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


def test_a_member_has_no_state_and_leaves_the_entry_alone(zoo: list[ZooEntry], train: ImageSplit) -> None:
    before = {name: tensor.clone() for name, tensor in zoo[0].model.state_dict().items()}
    member = Member.of(zoo[0], CPU)
    pixels, _ = next(train.batches(50))
    first, again = member.own_output(pixels), member.own_output(pixels)
    assert torch.equal(first, again)
    for model in (zoo[0].model, member.model):
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name


def test_a_member_uses_the_statistics_of_the_batch(zoo: list[ZooEntry], train: ImageSplit) -> None:
    member = Member.of(zoo[0], CPU)
    pixels, _ = next(train.batches(50))
    shifted = {name: tensor + (5 if "running" in name else 0) for name, tensor in zoo[0].graph.tensors.items()}
    torch.testing.assert_close(member.output(shifted, pixels), member.own_output(pixels))


def test_a_member_takes_images_in_another_layout_for_the_same(zoo: list[ZooEntry], train: ImageSplit) -> None:
    pixels, _ = next(train.batches(50))
    member, laid_out = Member.of(zoo[0], CPU), Member.of(zoo[0], CPU, pixels)
    assert laid_out.memory_format == torch.channels_last
    torch.testing.assert_close(laid_out.own_output(pixels), member.own_output(pixels))


def test_a_member_runs_with_the_weights_it_is_given(step: Step, train: ImageSplit) -> None:
    pixels, _ = next(train.batches(50))
    weights = leaves(step)
    torch.testing.assert_close(step.member.output(weights, pixels), step.member.own_output(pixels))
    blind = step.member.output({"head.weight": torch.zeros(3, 6)}, pixels)
    torch.testing.assert_close(blind, step.member.model.get_parameter("head.bias").expand_as(blind))


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"shares"}))
@pytest.mark.parametrize("criterion", ["group-l2", "bn-scale", "taylor", "random"])
def test_every_objective_reaches_every_weight(step: Step, name: str, criterion: Criterion) -> None:
    step, weights = with_settings(step, criterion=criterion, distill=0.5, lookahead=1), leaves(step)
    for loss in OBJECTIVES[name](step, weights):  # type: ignore[index]
        loss.backward()
    untouched = {n for n, leaf in weights.items() if leaf.grad is None or not leaf.grad.any()}
    assert not untouched


def test_pruned_is_the_dense_and_the_masked_loss(step: Step) -> None:
    step = with_settings(step, batches=2, dense_weight=0.5)
    weights, graph = leaves(step), step.member.graph
    batches = [next(step.batches) for _ in range(2)]
    step = replace(step, batches=iter(batches))
    scores = unit_scores(graph, graph.tensors, "group-l2")
    draws = torch.Generator().manual_seed(0)
    expected = torch.zeros(())
    for number, (pixels, labels) in enumerate(batches):
        target = random_speedup(replace(step, generator=draws), number)
        masked = mask_tensors(graph, weights, select(graph, scores, target))
        expected = expected + 0.25 * F.cross_entropy(step.member.output(weights, pixels), labels)
        expected = expected + 0.5 * F.cross_entropy(step.member.output(masked, pixels), labels)
    losses = list(pruned(step, weights))
    torch.testing.assert_close(torch.stack(losses).sum(), expected)


def test_of_several_criteria_every_batch_draws_one(step: Step) -> None:
    step = with_settings(step, criteria=("bn-scale", "random"))
    drawn = [random_criterion(step) for _ in range(60)]
    assert set(drawn) == {"group-l2", "bn-scale", "random"}
    weights, graph = leaves(step), step.member.graph
    by_each = [
        mask_tensors(graph, weights, select(graph, unit_scores(graph, graph.tensors, criterion), 2.0))
        for criterion in ("group-l2", "bn-scale")
    ]
    step = with_settings(step, criteria=("bn-scale",))
    found = [finetuned(step, weights, 2.0) for _ in range(8)]
    assert all(any(same(one, other) for one in by_each) for other in found)
    assert all(any(same(one, other) for other in found) for one in by_each)


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def test_a_single_criterion_draws_nothing(step: Step) -> None:
    before = step.generator.get_state()
    assert random_criterion(step) == "group-l2"
    assert torch.equal(step.generator.get_state(), before)


def test_without_a_dense_weight_the_dense_loss_is_not_computed(step: Step) -> None:
    assert len(list(pruned(with_settings(step, dense_weight=0.0, batches=3), leaves(step)))) == 3


def test_speed_ups_cover_the_range_evenly(step: Step) -> None:
    step = with_settings(step, batches=4)
    edges = [speedup_at(step.settings, part / 4) for part in range(5)]
    assert (edges[0], edges[-1]) == pytest.approx((SETTINGS.speedup_min, SETTINGS.speedup_max))
    for _ in range(20):
        drawn = [random_speedup(step, number) for number in range(4)]
        assert all(low <= speedup <= high for low, speedup, high in zip(edges, drawn, edges[1:], strict=False))


def test_without_lookahead_the_smaller_model_is_the_masked_one(step: Step) -> None:
    weights, graph = leaves(step), step.member.graph
    kept = select(graph, unit_scores(graph, graph.tensors, "group-l2"), 2.0)
    assert_close(finetuned(step, weights, 2.0), mask_tensors(graph, weights, kept))


def test_lookahead_is_plain_sgd_on_the_masked_weights(step: Step) -> None:
    step = with_settings(step, lookahead=2, lookahead_lr=0.1)
    weights, graph = leaves(step), step.member.graph
    kept = select(graph, unit_scores(graph, graph.tensors, "group-l2"), 2.0)
    lost = {name: ~mask for name, mask in masks(graph, kept).items()}
    expected = {name: tensor.detach() for name, tensor in mask_tensors(graph, weights, kept).items()}
    batches = [next(step.batches) for _ in range(2)]
    for batch in batches:
        moving = {name: tensor.requires_grad_() for name, tensor in expected.items()}
        steps = torch.autograd.grad(step.loss(moving, batch), list(moving.values()))
        stepped = {n: t.detach() - 0.1 * s for (n, t), s in zip(moving.items(), steps, strict=True)}
        expected = {n: t.masked_fill(lost[n], 0) if n in lost else t for n, t in stepped.items()}
    actual = finetuned(replace(step, batches=iter(batches)), weights, 2.0)
    assert_close({name: tensor.detach() for name, tensor in actual.items()}, expected)


def test_the_gradient_of_a_lookahead_is_taken_where_it_ends(step: Step) -> None:
    step = with_settings(step, lookahead=2)
    weights, batch = leaves(step), next(step.batches)
    smaller = finetuned(step, weights, 2.0)
    loss = step.loss(smaller, batch)
    actual = torch.autograd.grad(loss, list(weights.values()), retain_graph=True)
    there = torch.autograd.grad(loss, list(smaller.values()))
    for name, gradient, end, tensor in zip(weights, actual, there, smaller.values(), strict=True):
        torch.testing.assert_close(gradient[tensor != 0], end[tensor != 0], msg=name)


def test_distillation_is_nothing_for_the_original_itself(step: Step) -> None:
    weights, batch = leaves(step), next(step.batches)
    plain, distilled = step.loss(weights, batch), with_settings(step, distill=3.0).loss(weights, batch)
    torch.testing.assert_close(distilled, plain)
    other = {**weights, "head.weight": weights["head.weight"] * 2}
    assert with_settings(step, distill=3.0).loss(other, batch) > step.loss(other, batch)


def test_the_penalty_pulls_each_weight_by_what_its_units_lack(step: Step) -> None:
    """reg · γ · w, with γ = 1 for the strongest unit of a family, α for the weakest, both ends of an edge added."""
    step = with_settings(step, batches=1, reg=2.0, alpha=9.0)
    weights, graph = leaves(step), step.member.graph
    (penalty,) = list(sparsity(step, weights))[1:]
    penalty.backward()
    inner = weights["inner.weight"]
    assert inner.grad is not None
    factor = (inner.grad / inner.detach() / step.settings.reg).mean((2, 3))  # (out, in): γ_out + γ_in
    importance = unit_scores(graph, graph.tensors, "group-l2").sqrt()
    block = next(block for block in graph.blocks if block.param == "inner.weight")
    gamma = {}
    for side in (block.destinations, block.sources):
        units = graph.units.unit_of[side[0]]
        mine = importance[units]
        gamma[side] = step.settings.alpha ** ((mine.max() - mine) / (mine.max() - mine.min()))
    out, into = gamma.values()
    torch.testing.assert_close(factor, out[:, None] + into[None, :], rtol=1e-4, atol=1e-4)
    assert float(out.min()) == 1
    assert float(out.max()) == pytest.approx(9.0)


def test_the_penalty_spares_units_that_cannot_go(step: Step) -> None:
    step, weights = with_settings(step, batches=1, reg=1.0), leaves(step)
    (penalty,) = list(sparsity(step, weights))[1:]
    penalty.backward()
    head = weights["head.weight"]
    assert head.grad is not None
    into = head.grad / head.detach()
    torch.testing.assert_close(into, into[:1].expand_as(into))  # γ of the inputs alone: classes are no units to remove


@pytest.mark.parametrize("objective", ["unstructured", "n:m"])
def test_zeroed_is_the_dense_loss_and_that_with_the_smallest_weights_at_zero(step: Step, objective: str) -> None:
    step = with_settings(step, objective=objective, pattern="1:3", choice_slope=0.3)
    weights, (pixels, labels) = leaves(step), next(step.batches)
    draws = torch.Generator().manual_seed(0)
    sparsity = 1 - 1 / random_speedup(replace(step, generator=draws), 0)
    asked = Zeroing("n:m", pattern=(1, 3)) if objective == "n:m" else Zeroing("unstructured", sparsity)
    masks = make_zero_plan(step.member.graph, weights, asked).masks
    dense, sparse = OBJECTIVES[objective](replace(step, batches=iter([(pixels, labels)])), weights)  # type: ignore[index]
    zeroed = {name: tensor * masks.get(name, 1) for name, tensor in weights.items()}
    torch.testing.assert_close(dense, F.cross_entropy(step.member.output(weights, pixels), labels))
    torch.testing.assert_close(sparse, F.cross_entropy(step.member.output(zeroed, pixels), labels))
    sparse.backward()
    gone = ~masks["inner.weight"]
    gradient = weights["inner.weight"].grad
    assert gradient is not None
    assert bool((gradient[gone] != 0).any())  # straight through


def test_l1_pulls_at_the_weights_that_can_be_zeroed_and_at_no_others(step: Step) -> None:
    step, weights = with_settings(step, objective="l1", reg=0.1), leaves(step)
    *_, penalty = OBJECTIVES["l1"](step, weights)
    penalty.backward()
    for name, leaf in weights.items():
        pulled = name in ("stem.weight", "inner.weight", "outer.weight")
        assert (leaf.grad is not None) == pulled, name
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, 0.1 * leaf.detach().sign())


def test_a_model_that_no_pattern_fits_is_refused(step: Step) -> None:
    step = with_settings(step, objective="n:m")
    with pytest.raises(TargetError, match=r"fits 2:4[\s\S]*inner.weight: inputs of each output: 6"):
        list(OBJECTIVES["n:m"](step, leaves(step)))


def test_a_lookahead_is_refused_where_nothing_looks_ahead() -> None:
    with pytest.raises(InputError, match=r"structured pruning[\s\S]*meta-train.lookahead"):
        MetaTrainSettings(objective="unstructured", lookahead=1)


def test_a_repair_is_looked_ahead_to(step: Step) -> None:
    """What is kept is fitted to what the whole network did on one batch; what is gone stays gone."""
    graph = step.member.graph
    weights = {name: tensor.detach() for name, tensor in leaves(step).items()}
    kept = select(graph, unit_scores(graph, {**graph.tensors, **weights}, "group-l2"), 2.0)
    plain, fitted = (finetuned(with_settings(step, repair=repair), weights, 2.0) for repair in (False, True))
    for name, mask in masks(graph, kept).items():
        assert name not in fitted or not fitted[name][~mask].any(), name
    images, _ = next(step.batches)
    truth = step.member.output(weights, images)
    before, after = (float((step.member.output(w, images) - truth).norm()) for w in (plain, fitted))
    assert after < 0.8 * before


def test_a_repair_is_a_constant_to_the_gradient(step: Step) -> None:
    weights = leaves(step)
    fitted = finetuned(with_settings(step, repair=True), weights, 2.0)
    torch.stack([tensor.sum() for tensor in fitted.values()]).sum().backward()
    for name, tensor in weights.items():
        assert tensor.grad is not None
        assert set(tensor.grad.unique().tolist()) <= {0.0, 1.0}, name
