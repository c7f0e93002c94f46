"""What tells data from other data: the same elsewhere are the same, any change shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metaprune_cli.config import DataSettings
from metaprune_cli.data import load_splits
from metaprune_cli.data.digest import digest_of
from metaprune_cli.data.image_split import MemoryImages


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """An image folder; that its files are no images, nobody sees who does not look at them."""
    root = tmp_path / "here"
    for number in range(8):
        folder = root / "train" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(bytes(10 + number))
    return root


def digest(root: Path, **settings: object) -> str:
    return load_splits(DataSettings("imagefolder", str(root), val_fraction=0.25, **settings)).digest  # type: ignore[arg-type]


def test_a_folder_elsewhere_is_the_same(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "there" / "deep")
    assert digest(pictures) == digest(tmp_path / "there" / "deep")


CHANGES: dict[str, Callable[[Path], object]] = {
    "renamed": lambda train: (train / "class0" / "0.png").rename(train / "class0" / "1.png"),
    "relabelled": lambda train: (train / "class0" / "0.png").rename(train / "class1" / "0.png"),
    "longer": lambda train: (train / "class0" / "0.png").write_bytes(bytes(99)),
    "other pixels": lambda train: (train / "class0" / "0.png").write_bytes(b"1" * 10),
    "gone": lambda train: (train / "class0" / "0.png").unlink(),
    "a class renamed": lambda train: (train / "class1").rename(train / "class2"),
    "images of its own for validation": lambda train: shutil.copytree(train, train.parent / "val"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_folder_shows(pictures: Path, change: str) -> None:
    before = digest(pictures)
    CHANGES[change](pictures / "train")
    assert digest(pictures) != before


def test_of_many_files_some_are_read(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaprune_cli.data.image_folder.READ", 3)
    before = digest(pictures)
    found = []
    for path in sorted(pictures.rglob("*.png")):
        content = path.read_bytes()
        path.write_bytes(b"1" * len(content))
        found.append(digest(pictures) != before)
        path.write_bytes(content)
    assert found == [True, False, False, True, False, False, True, False]
    assert digest(pictures) == before


def test_another_split_is_other_data(pictures: Path) -> None:
    assert digest(pictures) != digest(pictures, split_seed=1)


def test_a_dangling_link_is_left_to_who_reads_it(pictures: Path) -> None:
    (pictures / "train" / "class0" / "nowhere.png").symlink_to("missing.png")
    assert digest(pictures)


def test_of_images_in_memory_every_pixel_and_label_counts() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
    other = pixels.clone()
    other[0, 2, 1, 1] += 1
    assert MemoryImages(pixels).digest == MemoryImages(pixels.clone()).digest != MemoryImages(other).digest
    assert MemoryImages(other, resized_from=MemoryImages(pixels).digest).digest == MemoryImages(pixels).digest
    splits = load_splits(DataSettings(image_size=4))
    splits.train.labels[0] += 1
    assert splits.digest != load_splits(DataSettings(image_size=4)).digest


def test_parts_do_not_run_into_each_other() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of(torch.zeros(2, 3)) != digest_of(torch.zeros(3, 2))
    assert digest_of(torch.zeros(0)) != digest_of("")
