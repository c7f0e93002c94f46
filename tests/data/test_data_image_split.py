from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metaprune_cli.data.augment import random_crop, random_flip
from metaprune_cli.data.image_split import ImageSplit, MemoryImages, Preparation, stratified


def split_of(pixels: Tensor, augmentation="none") -> ImageSplit:
    n, channels = pixels.shape[:2]
    preparation = Preparation((0.0,) * channels, (1.0,) * channels, augmentation)
    return ImageSplit(MemoryImages(pixels), torch.arange(n), torch.arange(n), preparation)


def numbered(n: int) -> ImageSplit:
    """Image i is filled with i, and so is its label."""
    return split_of(torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 4, 4).clone())


def labels_of(split: ImageSplit, batch_size=4, **options) -> list[int]:
    return [int(label) for _, labels in split.batches(batch_size, **options) for label in labels]


def test_batches_keep_images_and_labels_together():
    for images, labels in numbered(10).batches(4, shuffle_seed=3):
        assert images.dtype == torch.float32
        torch.testing.assert_close(images[:, 0, 0, 0] * 255, labels.float())


def test_without_a_seed_the_order_is_that_of_the_files():
    assert labels_of(numbered(10)) == list(range(10))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**40), n=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_shuffling_is_a_permutation_that_depends_on_the_seed_alone(seed, n, batch_size):
    order = labels_of(numbered(n), batch_size, shuffle_seed=seed)
    assert sorted(order) == list(range(n))
    assert order == labels_of(numbered(n), 7, shuffle_seed=seed)


def test_drop_last_leaves_only_full_batches():
    assert [len(labels) for _, labels in numbered(10).batches(4, drop_last=True)] == [4, 4]


@pytest.mark.parametrize(("n", "parts"), [(12, 1), (13, 2), (13, 3), (9, 4)])
def test_the_parts_of_a_batch_are_the_batch(n, parts):
    whole = [labels.tolist() for _, labels in numbered(n).batches(4, shuffle_seed=5)]
    shares = [list(numbered(n).batches(4, shuffle_seed=5, part=(number, parts))) for number in range(parts)]
    batches = itertools.zip_longest(*shares, fillvalue=(None, []))  # the last one may have fewer images than parts
    joined = [[int(label) for _, labels in batch for label in labels] for batch in batches]
    assert joined == whole


def test_iterating_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    labels_of(numbered(10), shuffle_seed=0, augment=True)
    torch.testing.assert_close(torch.get_rng_state(), before)


@pytest.mark.parametrize("augmentation", ["crop", "crop-flip"])
def test_augmentation_depends_on_the_seed_alone_and_changes_with_it(augmentation):
    split = split_of(torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8), augmentation)

    def images(seed):
        return torch.cat([images for images, _ in split.batches(8, shuffle_seed=seed, augment=True)])

    torch.testing.assert_close(images(1), images(1), rtol=0, atol=0)
    assert not torch.equal(images(1), images(2))


def test_normalisation_is_per_channel():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1)
    assert Preparation((0.5, 0.5), (0.5, 0.25)).normalised(pixels).flatten().tolist() == [-1, 2]


@pytest.mark.parametrize(("size", "reach"), [(8, 1), (32, 4)])
def test_crops_are_shifts_drawn_for_each_image(size, reach):
    column = torch.arange(size, dtype=torch.float32) + 100
    images = column.expand(200, 1, size, size)
    cropped = random_crop(images, torch.Generator().manual_seed(0))
    assert cropped.shape == images.shape
    middle = size // 2
    shifts = {int(shift) for shift in cropped[:, 0, middle, middle] - images[:, 0, middle, middle]}
    assert shifts == set(range(-reach, reach + 1))


def test_flips_mirror_about_half_of_the_images():
    images = torch.rand(200, 3, 4, 4)
    flipped = random_flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 70 < mirrored.sum() < 130


def test_a_subset_is_reproducible_and_never_larger_than_the_whole():
    chosen = labels_of(numbered(20).subset(5, seed=1))
    assert chosen == labels_of(numbered(20).subset(5, seed=1)) == sorted(chosen)
    assert len(chosen) == 5
    assert labels_of(numbered(3).subset(5, seed=1)) == [0, 1, 2]
    assert set(labels_of(numbered(20).subset(8, seed=1).subset(4, seed=2))) <= set(
        labels_of(numbered(20).subset(8, seed=1))
    )


@given(st.integers(1, 8), st.integers(1, 40), st.floats(0, 1), st.integers(0, 1000))
def test_a_stratified_split_is_a_partition_with_the_fraction_in_every_class(classes, per_class, fraction, seed):
    labels = torch.arange(classes).repeat(per_class)
    first, second = stratified(labels, fraction, seed)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(labels)))
    assert len(second) == round(fraction * len(labels))
    of_class = torch.bincount(labels[second], minlength=classes)
    assert float((of_class - fraction * per_class).abs().max()) < 2


def test_another_seed_is_another_stratified_split():
    labels = torch.arange(10).repeat(10)
    assert torch.equal(stratified(labels, 0.3, 1)[1], stratified(labels, 0.3, 1)[1])
    assert not torch.equal(stratified(labels, 0.3, 1)[1], stratified(labels, 0.3, 2)[1])
