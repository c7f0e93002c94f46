from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from metaprune_cli.config import DataSettings
from metaprune_cli.data import load_splits, load_test
from metaprune_cli.errors import CorruptFileError, InputError


def write(root, part, classes=("cat", "dog"), n=4, size=(40, 30)):
    generator = np.random.default_rng(0)
    for name in classes:
        folder = root / part / name
        folder.mkdir(parents=True)
        for number in range(n):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")


def settings(root, **changes) -> DataSettings:
    return DataSettings(dataset="imagefolder", data_root=str(root), **{"image_size": 16, "val_fraction": 0.5} | changes)


def test_folders_are_classes_and_validation_is_split_off(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "test", n=3)
    splits = load_splits(settings(tmp_path))
    assert (len(splits.train), len(splits.val), splits.num_classes) == (4, 4, 2)
    assert splits.input_shape == (1, 3, 16, 16)
    images, labels = next(load_test(settings(tmp_path)).batches(6))
    assert images.shape == (6, 3, 16, 16)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_validation_folder_is_used(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "val", n=1)
    splits = load_splits(settings(tmp_path, train_limit=6))
    assert (len(splits.train), len(splits.val)) == (6, 2)


@pytest.mark.parametrize("size", [(32, 32), (40, 30)])
def test_without_a_size_images_keep_their_own(tmp_path, size):
    write(tmp_path, "train", n=2, size=size)
    splits = load_splits(settings(tmp_path, image_size=None))
    assert splits.input_shape == (1, 3, size[1], size[0])
    pixels = next(splits.train.images.read(torch.tensor([0]), 1))[0]
    original = np.asarray(Image.open(tmp_path / "train" / "cat" / "0.png"))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), original)


def test_without_a_size_images_of_several_sizes_are_of_224_pixels(tmp_path):
    write(tmp_path, "train", n=2)
    write(tmp_path, "train", ("owl",), n=1, size=(32, 32))
    assert load_splits(settings(tmp_path, image_size=None)).input_shape == (1, 3, 224, 224)


def test_images_of_other_sizes_are_fitted_to_the_training_images(tmp_path):
    write(tmp_path, "train", n=2, size=(40, 30))
    write(tmp_path, "test", n=1, size=(90, 33))
    assert next(load_test(settings(tmp_path, image_size=None)).batches(2)).inputs.shape == (2, 3, 30, 40)


def test_images_of_the_right_size_are_left_alone(tmp_path):
    write(tmp_path, "test", size=(16, 16))
    write(tmp_path, "train", n=1)
    pixels = next(load_test(settings(tmp_path)).images.read(torch.tensor([0]), 1))[0]
    original = np.asarray(Image.open(tmp_path / "test" / "cat" / "0.png"))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), original)


def test_classes_are_numbered_by_the_training_folder(tmp_path):
    write(tmp_path, "train", ("ant", "bee", "cat"))
    write(tmp_path, "test", ("cat",), n=1)
    assert load_test(settings(tmp_path)).labels.tolist() == [2]


def test_a_class_that_is_not_in_training_is_refused(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "test", ("cat", "emu"))
    with pytest.raises(InputError, match=r"classes in test/ that train/ does not have") as caught:
        load_test(settings(tmp_path))
    assert "emu" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(workers, tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "test", n=1)
    file = tmp_path / "test" / "dog" / "0.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(CorruptFileError, match="cannot be read") as caught:
        list(load_test(settings(tmp_path, workers=workers)).batches(2))
    assert str(file) in str(caught.value)


def test_empty_class_folders_are_refused(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="No image folder images were found"):
        load_splits(settings(tmp_path))
