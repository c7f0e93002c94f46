from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from metaprune_cli.config import DataSettings
from metaprune_cli.data import load_splits, load_test
from metaprune_cli.data.cifar import CIFAR10, CIFAR100, read_cifar
from metaprune_cli.errors import CorruptFileError, InputError

PER_FILE = 8
DATASETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def arrays(seed: int, num_classes: int):
    generator = np.random.default_rng(seed)
    labels = (np.arange(PER_FILE) % 4 + generator.integers(num_classes - 4)).astype(np.uint8)
    return generator.integers(0, 256, (PER_FILE, 3072), np.uint8), labels


def write_binary(path: Path, pixels, labels, coarse: bool):
    columns = [labels[:, None], pixels]
    np.concatenate([labels[:, None] // 5, *columns] if coarse else columns, axis=1).tofile(path)


def write_python(path: Path, pixels, labels, coarse: bool, protocol: int):
    key = "fine_labels" if coarse else "labels"
    path.write_bytes(pickle.dumps({"data": pixels, key: labels.tolist(), "batch_label": path.name}, protocol))


def write(root: Path, dataset: str, layout: str, protocol: int = 2, below: bool = True) -> None:
    """All files of a dataset in one of its official layouts, a few images each."""
    chosen = DATASETS[dataset].layouts[layout == "python"]
    folder = root / chosen.folder if below else root
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate([*chosen.files["train"], *chosen.files["test"]]):
        pixels, labels = arrays(seed, DATASETS[dataset].num_classes)
        if layout == "python":
            write_python(folder / name, pixels, labels, dataset == "cifar100", protocol)
        else:
            write_binary(folder / name, pixels, labels, dataset == "cifar100")


def settings(root: Path, dataset="cifar10") -> DataSettings:
    return DataSettings(dataset=dataset, data_root=str(root), val_fraction=0.25)


@pytest.mark.parametrize("below", [True, False], ids=["usual-folder", "root"])
@pytest.mark.parametrize("layout", ["binary", "python"])
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_what_was_written_is_read(dataset, layout, below, tmp_path):
    write(tmp_path, dataset, layout, below=below)
    files = 5 if dataset == "cifar10" else 1
    splits = load_splits(settings(tmp_path, dataset))
    assert len(splits.train) + len(splits.val) == files * PER_FILE
    assert splits.input_shape == (1, 3, 32, 32)
    assert splits.num_classes == (10 if dataset == "cifar10" else 100)
    test = load_test(settings(tmp_path, dataset))
    pixels, labels = arrays(files, splits.num_classes)
    torch.testing.assert_close(test.images.pixels.flatten(1), torch.tensor(pixels))
    assert test.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_two_layouts_agree(dataset, tmp_path):
    sources = []
    for layout in ("binary", "python"):
        (tmp_path / layout).mkdir()
        write(tmp_path / layout, dataset, layout)
        sources.append(read_cifar(DATASETS[dataset], settings(tmp_path / layout), "train"))
    torch.testing.assert_close(sources[0].images.pixels, sources[1].images.pixels)
    torch.testing.assert_close(sources[0].labels, sources[1].labels)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_read(protocol, tmp_path):
    write(tmp_path, "cifar10", "python", protocol)
    assert len(load_test(settings(tmp_path))) == PER_FILE


@pytest.mark.parametrize("layout", ["binary", "python"])
def test_training_images_need_no_test_file(layout, tmp_path):
    write(tmp_path, "cifar10", layout)
    for file in tmp_path.glob("*/test_batch*"):
        file.unlink()
    load_splits(settings(tmp_path))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    write(tmp_path, "cifar10", "python")
    trace = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({"data": Payload(), "labels": []}))
    with pytest.raises(CorruptFileError, match="system, which is refused") as caught:
        load_splits(settings(tmp_path))
    assert "data_batch_3" in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("layout", ["binary", "python"])
@pytest.mark.parametrize("kept", [0, 1000])
def test_a_truncated_file_is_refused(layout, kept, tmp_path):
    write(tmp_path, "cifar10", layout)
    (file,) = tmp_path.glob("*/data_batch_2*")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CorruptFileError) as caught:
        load_splits(settings(tmp_path))
    assert str(file) in str(caught.value)


def test_a_label_out_of_range_is_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels, labels = arrays(0, 10)
    write_binary(folder / "test_batch.bin", pixels, labels + 10, coarse=False)
    with pytest.raises(CorruptFileError, match="not classes of its data set") as caught:
        load_test(settings(tmp_path))
    assert "from 0 to 9" in str(caught.value)


def test_a_pickle_without_images_is_refused(tmp_path):
    write(tmp_path, "cifar100", "python")
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps({"data": [1, 2], "fine_labels": [0, 1]}, 2))
    with pytest.raises(CorruptFileError, match="not a pickle of images"):
        load_test(settings(tmp_path, "cifar100"))


REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not (REAL / "unpack_cifar10.py").is_file(), reason="../shared/data has no CIFAR-10")
def test_the_real_cifar10(tmp_path):
    subprocess.run([sys.executable, REAL / "unpack_cifar10.py", tmp_path], check=True, capture_output=True)
    chosen = DataSettings(dataset="cifar10", data_root=str(tmp_path))
    splits, test = load_splits(chosen), load_test(chosen)
    assert (len(splits.train), len(splits.val), len(test)) == (42_500, 7_500, 10_000)
    images = torch.cat([images for images, _ in splits.val.batches(500)])
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=0.03)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), rtol=0, atol=0.03)
    assert test.labels[:5].tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, aeroplane, frog


@pytest.mark.parametrize(
    "labels", [["cat"] * PER_FILE, [1.5] * PER_FILE, [None] * PER_FILE, [{}] * PER_FILE, [10**30] * PER_FILE], ids=str
)
def test_labels_that_are_no_numbers_are_refused(labels, tmp_path):
    write(tmp_path, "cifar10", "python")
    for name in CIFAR10.layouts[1].files["test"]:
        content = {"data": arrays(0, 10)[0], "labels": labels}
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content))
    with pytest.raises(CorruptFileError, match=r"(?s)labels in this file are not class numbers.*from 0 to 9"):
        load_test(settings(tmp_path))


def test_a_pickle_that_asks_for_another_codec_is_refused(tmp_path):
    write(tmp_path, "cifar10", "python")
    asks = b"c_codecs\nencode\n(Vtext\nVunicode_escape\ntR."
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(asks)
    with pytest.raises(CorruptFileError, match=r"(?s)not a pickle of images.*codec 'unicode_escape', which is refused"):
        load_test(settings(tmp_path))


def test_who_names_another_data_set_than_lies_there_is_told(tmp_path):
    write(tmp_path, "cifar10", "binary")
    with pytest.raises(InputError, match="these are files for --dataset cifar10"):
        load_splits(settings(tmp_path, "imagefolder"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="put one folder for each class into train/"):
        load_splits(settings(tmp_path / "empty", "imagefolder"))
