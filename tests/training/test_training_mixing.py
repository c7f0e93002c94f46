from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.config import OptimSettings
from metaprune_cli.data import Batch
from metaprune_cli.tasks import Classification
from metaprune_cli.training.mixing import Mixture, mixed

ALPHAS = st.floats(0.05, 20)
SIZES = st.integers(1, 9)


def numbered(count: int, height: int, width: int) -> Batch:
    """Image i is i everywhere, and so is its label."""
    labels = torch.arange(count)
    return Batch(labels.float()[:, None, None, None].expand(count, 2, height, width).clone(), labels)


def accuracy(batch: Mixture, output: Tensor) -> float:
    task = Classification()
    meter = task.quick_meter()
    batch.tell_(meter, task, output)
    return meter.values()["top1"]


def of_partners(batch: Mixture) -> Tensor:
    assert batch.partners is not None
    assert sorted(batch.partners.tolist()) == list(range(len(batch.targets)))
    return batch.partners.float()


@settings(max_examples=40, deadline=None)
@given(ALPHAS, st.integers(1, 6), SIZES, SIZES, st.integers(0, 99))
def test_mixup_is_the_mixture_that_the_loss_says(alpha: float, count: int, height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    batch = mixed(numbered(count, height, width), OptimSettings(mixup=alpha))
    expected = batch.share * batch.targets + (1 - batch.share) * of_partners(batch)
    torch.testing.assert_close(batch.inputs, expected[:, None, None, None].expand_as(batch.inputs))


@settings(max_examples=40, deadline=None)
@given(ALPHAS, st.integers(1, 6), SIZES, SIZES, st.integers(0, 99))
def test_cutmix_is_a_rectangle_of_just_the_share_that_is_missing(
    alpha: float, count: int, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    batch = mixed(numbered(count, height, width), OptimSettings(cutmix=alpha))
    pasted = batch.inputs != batch.targets[:, None, None, None]
    assert torch.equal(batch.inputs[pasted], of_partners(batch)[:, None, None, None].expand_as(batch.inputs)[pasted])
    moved = pasted[batch.targets != batch.partners]
    for mask in moved.flatten(0, 1):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert mask.sum() == pytest.approx((1 - batch.share) * height * width, abs=1e-3)


def test_both_ways_take_turns() -> None:
    torch.manual_seed(0)
    images, labels = numbered(4, 6, 6)
    kinds = set()
    for _ in range(20):
        batch = mixed(Batch(images, labels), OptimSettings(mixup=1.0, cutmix=1.0))
        kinds.add(bool((batch.inputs == batch.inputs.round()).all()))
    assert kinds == {True, False}


def test_without_either_nothing_is_drawn_and_nothing_copied() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    images, labels = numbered(3, 2, 2)
    batch = mixed(Batch(images, labels), OptimSettings())
    assert batch.inputs is images
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_with_the_mixed_labels(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels, partners = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 0])
    batch, task = Mixture(torch.zeros(5, 1, 1, 1), labels, partners, 0.3), Classification(smoothing)
    soft = 0.3 * F.one_hot(labels, 3) + 0.7 * F.one_hot(partners, 3)
    torch.testing.assert_close(batch.loss(task, logits), F.cross_entropy(logits, soft, label_smoothing=smoothing))
    sure = F.one_hot(labels, 3).float()
    assert accuracy(batch, sure) == pytest.approx(100 * (0.3 * 5 + 0.7 * 1) / 5)
    assert accuracy(Mixture(batch.inputs, labels), sure) == 100


def test_channels_last_stays_channels_last() -> None:
    images = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    for way in (OptimSettings(mixup=1.0), OptimSettings(cutmix=1.0)):
        batch = mixed(Batch(images, torch.arange(4)), way)
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
