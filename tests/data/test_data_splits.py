from __future__ import annotations

from pathlib import Path

import pytest
import torch

import metaprune_cli
from metaprune_cli.config import DataSettings
from metaprune_cli.data import load_splits, load_test
from metaprune_cli.errors import InputError


def rows(split):
    return {tuple(image.flatten().tolist()) for images, _ in split.batches(256) for image in images}


def test_digits_splits_cover_the_dataset_and_share_nothing():
    settings = DataSettings()
    splits, test = load_splits(settings), load_test(settings)
    assert (splits.num_classes, splits.input_shape, splits.name) == (10, (1, 1, 8, 8), "digits")
    assert len(splits.train) + len(splits.val) + len(test) == 1797
    train, val, held_out = rows(splits.train), rows(splits.val), rows(test)
    assert not train & val
    assert not train & held_out
    assert not val & held_out


def test_digits_are_normalised():
    images = torch.cat([images for images, _ in load_splits(DataSettings()).train.batches(256)])
    assert images.shape[1:] == (1, 8, 8)
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02


def test_every_split_has_every_class():
    settings = DataSettings()
    splits = load_splits(settings)
    for split in (splits.train, splits.val, load_test(settings)):
        labels = torch.cat([labels for _, labels in split.batches(256)])
        assert labels.dtype == torch.int64
        assert labels.unique().tolist() == list(range(10))


def test_the_split_seed_decides():
    first, same, other = (load_splits(DataSettings(split_seed=seed)).train for seed in (0, 0, 1))
    assert rows(first) == rows(same) != rows(other)


def test_train_limit_counts_training_and_validation():
    splits = load_splits(DataSettings(train_limit=200, val_fraction=0.25))
    assert len(splits.train) + len(splits.val) == 200
    assert 45 <= len(splits.val) <= 55


def test_image_size_resizes():
    splits = load_splits(DataSettings(image_size=12, train_limit=20, val_fraction=0.5))
    assert splits.input_shape == (1, 1, 12, 12)
    images, _ = next(splits.val.batches(4))
    assert images.shape[1:] == (1, 12, 12)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="too few images to split") as caught:
        load_splits(DataSettings(train_limit=2, val_fraction=0.1))
    assert "2 for training, 0 for validation" in str(caught.value)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "svhn", "imagefolder"])
def test_a_dataset_of_files_needs_a_folder(dataset, tmp_path):
    with pytest.raises(InputError, match="is not given") as caught:
        load_splits(DataSettings(dataset=dataset))
    assert "--data-root" in str(caught.value)
    with pytest.raises(InputError, match="does not exist"):
        load_splits(DataSettings(dataset=dataset, data_root=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("cifar10", ["cifar-10-batches-bin", "data_batch_5.bin", "cifar-10-batches-py"]),
        ("cifar100", ["cifar-100-binary", "train.bin", "cifar-100-python"]),
        ("svhn", ["train_32x32.mat"]),
        ("imagefolder", ["train/CLASS"]),
    ],
)
def test_missing_files_are_named(dataset, names, tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(InputError, match=r"No .* images were found") as caught:
        load_splits(DataSettings(dataset=dataset, data_root=str(tmp_path)))
    for text in [*names, "holiday.jpg", str(tmp_path)]:
        assert text in str(caught.value)


def test_only_eval_reads_the_test_split():
    package = Path(metaprune_cli.__file__).parent
    users = {str(file.relative_to(package)) for file in package.rglob("*.py") if "load_test" in file.read_text("utf-8")}
    assert users <= {"data/__init__.py", "data/splits.py", "tasks/classification.py"}
