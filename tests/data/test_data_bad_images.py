"""Image folders and image files that are damaged, made to fill the memory, or odd but sound."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metaprune_cli.config import DataSettings
from metaprune_cli.data import load_splits
from metaprune_cli.errors import CorruptFileError, InputError

SIZE = 16


def grey(path: Path, value: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE, SIZE), (value,) * 3).save(path, format="png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images; the file that a test writes is the first of all."""
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        grey(tmp_path / "train" / name)
    return tmp_path


def first_image(folder: Path, workers: int = 0) -> Tensor:
    settings = DataSettings("imagefolder", str(folder), image_size=SIZE, val_fraction=0.5, workers=workers)
    return next(load_splits(settings).train.images.read(torch.tensor([0, 1]), 2))[0]


def bomb(pixels: int) -> bytes:
    """A PNG that says it is ``pixels`` squared."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", pixels, pixels, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"hello", bomb(10_000), bomb(30_000), bomb(100)[:40]],
    ids=["empty", "svg", "text", "100 million pixels", "900 million pixels", "truncated"],
)
def test_an_image_that_cannot_be_read_is_named(folder: Path, content: bytes) -> None:
    (folder / "train" / "a" / "0.png").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"(?s)An image cannot be read.*where: .*train/a/0\.png"):
        first_image(folder)


def test_a_worker_says_it_in_the_same_words(folder: Path) -> None:
    (folder / "train" / "a" / "0.png").write_bytes(b"hello")
    with pytest.raises(CorruptFileError) as caught:
        first_image(folder, workers=1)
    assert caught.value.what == "An image cannot be read."
    assert "Traceback" not in str(caught.value)


def test_a_pipe_among_the_images_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "train" / "a" / "0.png")
    with pytest.raises(InputError, match=r"is a pipe"):
        first_image(folder)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "L", "1", "I;16"])
def test_odd_pixels_read_right(folder: Path, mode: str) -> None:
    path = folder / "train" / "a" / "0.png"
    if mode == "I;16":
        Image.fromarray(np.full((SIZE, SIZE), 200 * 257, np.uint16)).save(path)
    else:
        picture = Image.new("L", (SIZE, SIZE), 200).convert("RGB" if mode == "CMYK" else "L").convert(mode)
        picture.save(path, format="tiff" if mode == "CMYK" else "png")
    expected = torch.full((3, SIZE, SIZE), 200.0)
    found = first_image(folder).float()
    torch.testing.assert_close(found.mean(), expected.mean(), atol=60.0 if mode == "1" else 2.0, rtol=0)


def test_of_an_animation_the_first_frame_is_read(folder: Path) -> None:
    frames = [Image.new("L", (SIZE, SIZE), value) for value in (10, 250)]
    frames[0].save(folder / "train" / "a" / "0.png", save_all=True, append_images=frames[1:])
    assert first_image(folder).unique().tolist() == [10]


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_of_a_very_long_image_the_middle_is_read(folder: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (7, 8, 9)).save(folder / "train" / "a" / "0.png")
    assert first_image(folder).flatten(1).unique(dim=1).tolist() == [[7], [8], [9]]


def test_links_in_circles_are_refused(folder: Path) -> None:
    (folder / "train" / "a" / "again").symlink_to("..")
    (folder / "train" / "a" / "more").symlink_to(".")
    with pytest.raises(InputError, match=r"(?s)contains a folder twice, by a link.*remove the link"):
        first_image(folder)


def test_one_class_and_empty_classes_are_read(folder: Path) -> None:
    (folder / "train" / "empty").mkdir()
    for path in (folder / "train" / "b").iterdir():
        path.unlink()
    assert first_image(folder).shape == (3, SIZE, SIZE)
