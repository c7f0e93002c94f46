"""Photographs to restore: patches, noise and small versions follow from seeds alone; what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from photograph_files import fill, picture
from PIL import Image

from metaprune_cli.config import DataSettings, RestorationSettings
from metaprune_cli.data.pairs import shrunk
from metaprune_cli.data.patches import Degradation, PatchSplit, WholeSplit
from metaprune_cli.data.restoring import Restored, load_restoration, load_restoration_tests
from metaprune_cli.errors import CorruptFileError, InputError

NOISY = Restored("gray", 1, Degradation(sigma=25))
LARGER = Restored("rgb", 2, Degradation())
PHOTOS = DataSettings("photos", image_size=24, augment="crop-flip", restoration=RestorationSettings(patches=40))


def folder(root: Path, **settings: object) -> DataSettings:
    return replace(PHOTOS, dataset="images", data_root=str(root), image_size=16, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[NOISY, LARGER], ids=["denoising", "larger"])
def train(request: pytest.FixtureRequest) -> PatchSplit:
    pytest.importorskip("skimage")
    split = load_restoration(PHOTOS, request.param).train
    assert isinstance(split, PatchSplit)
    return split


def joined(split: PatchSplit | WholeSplit, batch_size: int, seed: int, part: tuple[int, int] = (0, 1)) -> torch.Tensor:
    found = split.batches(batch_size, shuffle_seed=seed, augment=True, part=part)
    return torch.cat([torch.cat([each.flatten(1) for each in batch], 1) for batch in found])


def test_patches_follow_from_the_seed_alone(train: PatchSplit) -> None:
    whole = joined(train, 8, seed=5)
    assert torch.equal(whole, joined(train, 20, seed=5))
    assert not torch.equal(whole, joined(train, 8, seed=6))
    parts = [list(train.batches(8, shuffle_seed=5, augment=True, part=(number, 2))) for number in range(2)]
    together = [torch.cat([one.inputs, other.inputs]) for one, other in zip(*parts, strict=True)]
    alone = [batch.inputs for batch in train.batches(8, shuffle_seed=5, augment=True)]
    assert torch.equal(torch.cat(together), torch.cat(alone))
    half = train.at(torch.arange(20))
    assert len(half) == 20
    assert half.digest != train.digest


def test_a_patch_and_what_it_should_become_are_of_one_place(train: PatchSplit) -> None:
    clean = replace(train, degradation=Degradation())
    inputs, targets = next(clean.batches(40, shuffle_seed=1, augment=True))
    scale = train.pairs.scale
    assert targets.shape[-1] == scale * inputs.shape[-1] == scale * 24
    again = torch.nn.functional.avg_pool2d(targets, scale)
    assert (inputs - again).abs().mean() < 0.03  # an average is nearly what the bicubic small version has


def test_noise_has_its_sigma_and_is_not_clipped() -> None:
    pytest.importorskip("skimage")
    split = load_restoration_tests(PHOTOS, NOISY)["photos"]
    noise = torch.cat([(inputs - targets).flatten() for inputs, targets in split.batches(1)]) * 255
    assert float(noise.std()) == pytest.approx(25, rel=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=0.2)
    assert min(float(batch.inputs.min()) for batch in split.batches(1)) < -0.05


def test_the_noise_of_a_test_image_is_always_the_same() -> None:
    pytest.importorskip("skimage")
    split = load_restoration_tests(PHOTOS, NOISY)["photos"]
    first, second = (batch.inputs for batch in split.batches(256))
    assert first.shape[0] == second.shape[0] == 1
    (alone,) = split.at(torch.tensor([1])).batches(3, shuffle_seed=9)
    assert torch.equal(alone.inputs, second)


def test_normalised_inputs_leave_targets_in_the_unit_range() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    found = Degradation(mean=(0.5,), std=(1 / 255,)).input_of(image, 0, 0)
    torch.testing.assert_close(found, image - 127.5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_small_versions_are_bicubic_with_antialiasing(scale: int) -> None:
    soft = picture(48 * scale // 2, 60, seed=3) // 2 + 64  # Pillow clips between its two passes
    image = torch.from_numpy(soft.transpose(2, 0, 1).copy())
    image = image[:, : image.shape[1] // scale * scale, : image.shape[2] // scale * scale]
    size = (image.shape[2] // scale, image.shape[1] // scale)
    array = image.permute(1, 2, 0).contiguous().numpy()
    expected = np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    inside = (slice(None), slice(4, -4), slice(4, -4))  # Pillow forgets what is beyond the edge, MATLAB mirrors it
    assert np.abs(shrunk(image, scale).numpy()[inside].astype(int) - expected[inside]).max() <= 1


def test_div2k_and_benchmarks_are_read_with_the_small_versions_that_are_there(tmp_path: Path) -> None:
    fill(tmp_path / "DIV2K_train_HR", 3, size=(40, 57))
    small = fill(tmp_path / "DIV2K_train_LR_bicubic" / "X2", 3, size=(20, 28))
    for path in small.iterdir():
        path.rename(path.with_stem(f"{path.stem}x2"))
    fill(tmp_path / "DIV2K_valid_HR", 1)
    fill(tmp_path / "Set5" / "HR", 2)
    fill(tmp_path / "Set14", 1)
    found = load_restoration(folder(tmp_path), LARGER)
    assert isinstance(found.train, PatchSplit)
    expected = np.asarray(Image.open(small / "00x2.png")).transpose(2, 0, 1)
    assert np.array_equal(found.train.pairs.inputs[0].numpy(), expected)
    assert found.train.pairs.targets[0].shape == (3, 40, 56)
    assert (len(found.val), found.input_shape) == (1, (1, 3, 16, 16))
    assert {name: len(split) for name, split in load_restoration_tests(folder(tmp_path), LARGER).items()} == {
        "Set5": 2,
        "Set14": 1,
    }


def test_any_folder_of_images_does(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    fill(tmp_path / "mine", 1)
    found = load_restoration(folder(tmp_path), NOISY)
    assert isinstance(found.train, PatchSplit)
    assert (len(found.train.pairs), len(found.val), found.input_shape) == (3, 1, (1, 1, 16, 16))
    asked = folder(tmp_path, restoration=RestorationSettings(tests=("mine",)))
    assert list(load_restoration_tests(asked, NOISY)) == ["mine"]


def test_odd_sides_lose_their_last_pixels(tmp_path: Path) -> None:
    fill(tmp_path / "test", 1, size=(41, 35))
    (split,) = load_restoration_tests(folder(tmp_path), replace(LARGER, scale=3)).values()
    (batch,) = split.batches(1)
    assert (batch.inputs.shape[2:], batch.targets.shape[2:]) == ((13, 11), (39, 33))


def bad_small(root: Path) -> None:
    fill(root / "Set5" / "HR", 2)
    fill(root / "Set5" / "LR_bicubic" / "X2", 2, size=(10, 14))


def missing_small(root: Path) -> None:
    fill(root / "Set5" / "HR", 2)
    fill(root / "Set5" / "LR_bicubic" / "X2", 1, size=(20, 28))


BAD = {
    "gray for colours": (
        lambda root: fill(root / "Set12", channels=1),
        r"gray, but colour images are needed(.|\n)*--pixels",
    ),
    "no test sets": (lambda root: fill(root / "Set6"), r"no test images(.|\n)*Set5, Set14(.|\n)*NAME/HR(.|\n)*Set6"),
    "other small versions": (bad_small, r"do not match(.|\n)*00.png 56x40, 00.png 14x10"),
    "missing small versions": (missing_small, r"no low-resolution version(.|\n)*none for 1 of 2: 01.png"),
    "tiny images": (lambda root: fill(root / "test", size=(12, 40)), r"too small(.|\n)*00.png 40x12"),
}


@pytest.mark.parametrize("kind", BAD)
def test_test_images_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    make, message = BAD[kind]
    make(tmp_path)  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=message):
        load_restoration_tests(folder(tmp_path), LARGER)


def test_a_gray_image_among_colours_is_one_of_three_equal_channels(tmp_path: Path) -> None:
    fill(fill(tmp_path / "Set14", 1, channels=1), 1, start=1)
    split = load_restoration_tests(folder(tmp_path), LARGER)["Set14"]
    gray = split.pairs.targets[0]
    assert torch.equal(gray[0], gray[1])
    assert split.names == ["00", "01"]


def test_a_test_set_that_is_asked_for_has_to_be_there(tmp_path: Path) -> None:
    fill(tmp_path / "Set5")
    asked = folder(tmp_path, restoration=RestorationSettings(tests=("Set5", "Mine")))
    with pytest.raises(InputError, match=r"images in Mine:"):
        load_restoration_tests(asked, LARGER)


def test_damaged_images_and_small_ones_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", 3, size=(30, 40))
    with pytest.raises(InputError, match=r"smaller than a patch(.|\n)*at least 32 pixels"):
        load_restoration(folder(tmp_path), LARGER)
    (tmp_path / "train" / "00.png").write_bytes(b"no image")
    with pytest.raises(CorruptFileError, match=r"An image cannot be read"):
        load_restoration(folder(tmp_path), NOISY)
    with pytest.raises(InputError, match=r"no images to train on(.|\n)*DIV2K_train_HR"):
        load_restoration(folder(fill(tmp_path / "x" / "Set5").parent), NOISY)
