from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.io import savemat

from metaprune_cli.config import DataSettings
from metaprune_cli.data import load_splits, load_test
from metaprune_cli.errors import CorruptFileError


def write(path, n=40, **changes):
    generator = np.random.default_rng(n)
    content = {
        "X": generator.integers(0, 256, (32, 32, 3, n), np.uint8),
        "y": (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None],
    }
    path.parent.mkdir(exist_ok=True)
    savemat(path, content | changes)
    return content


@pytest.mark.parametrize("below", ["", "svhn"])
def test_what_was_written_is_read(below, tmp_path):
    write(tmp_path / below / "train_32x32.mat")
    written = write(tmp_path / below / "test_32x32.mat", n=20)
    settings = DataSettings(dataset="svhn", data_root=str(tmp_path), val_fraction=0.25)
    splits, test = load_splits(settings), load_test(settings)
    assert (len(splits.train), len(splits.val), len(test)) == (30, 10, 20)
    assert test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    torch.testing.assert_close(test.images.pixels[7], torch.tensor(written["X"][..., 7].transpose(2, 0, 1).copy()))


@pytest.mark.parametrize("labels", [0, 11])
def test_a_label_out_of_range_is_refused(labels, tmp_path):
    write(tmp_path / "test_32x32.mat", n=2, y=np.array([[1], [labels]], np.uint8))
    with pytest.raises(CorruptFileError, match="SVHN file is damaged"):
        load_test(DataSettings(dataset="svhn", data_root=str(tmp_path)))


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_truncated_file_is_refused(kept, tmp_path):
    file = tmp_path / "test_32x32.mat"
    write(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match="SVHN file is damaged") as caught:
        load_test(DataSettings(dataset="svhn", data_root=str(tmp_path)))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"X": np.zeros((32, 32, 3), np.uint8)},
        {"X": np.array([["a", 1]], object)},
        {"X": np.zeros((32, 32, 3, 1001), np.uint8)},
        {"y": np.array([["one"], ["two"]])},
        {"y": np.array([[1, "a"]], object)},
    ],
    ids=["shape", "objects", "too many", "text", "labels of objects"],
)
def test_other_contents_are_refused(changes, tmp_path, monkeypatch):
    monkeypatch.setattr("metaprune_cli.data.svhn.MOST_IMAGES", 1000)
    write(tmp_path / "test_32x32.mat", n=2, **changes)
    with pytest.raises(CorruptFileError, match="SVHN file is damaged"):
        load_test(DataSettings(dataset="svhn", data_root=str(tmp_path)))
