"""Super-resolution and denoising: figures add up, by the field's conventions; images of any size go through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.config import DataSettings, Preprocessing, RestorationSettings
from metaprune_cli.data.patches import Degradation
from metaprune_cli.data.restoring import Restored, load_without_training
from metaprune_cli.data.splits import Splits, load_splits
from metaprune_cli.errors import InputError
from metaprune_cli.graph.trace.tracer import call
from metaprune_cli.metrics.image_quality import luma, psnr, ssim
from metaprune_cli.models import Architecture, build
from metaprune_cli.tasks import Tally, Task, find_task
from metaprune_cli.tasks.measuring import measure, tallied
from metaprune_cli.tasks.restoration import Denoising, SuperResolution
from metaprune_cli.tasks.running import fitting, in_tiles, padded

CPU = torch.device("cpu")
NAMES = ("super-resolution", "denoising")


def data(**restoration: Any) -> DataSettings:
    return DataSettings("photos", image_size=24, restoration=RestorationSettings(patches=8, **restoration))


def nothing(channels: int) -> Splits:
    pixels = "gray" if channels == 1 else "rgb"
    return load_without_training(data(), Restored(pixels, 1, Degradation()))


class Enlarged(nn.Module):
    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=float(self.scale), mode="bilinear")


def pictures(count: int, channels: int, side: int, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, side, side + 3, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.integers(16, 24), min_size=2, max_size=5), st.integers(0, 9))
def test_parts_merged_are_the_whole(name: str, sides: list[int], seed: int) -> None:
    task, model = find_task(name), Enlarged(2 if name == "super-resolution" else 1)
    scale = model.scale
    images = [pictures(1, 3, side, seed + place) for place, side in enumerate(sides)]
    batches = [(image, model(image).square()) for image in images]
    assert batches[0][1].shape[-1] == scale * images[0].shape[-1]
    whole = measure(model, batches, CPU, task)
    merged = Tally(task)
    for batch in batches:
        merged.merge(tallied(model, [batch], CPU, task).sums())
    assert merged.score().values == pytest.approx(dict(whole.values), rel=1e-9)
    alone = [measure(model, [batch], CPU, task).values["psnr"] for batch in batches]
    assert whole.values["psnr"] == pytest.approx(sum(alone) / len(alone))  # the mean over images, not over pixels


def test_enlarged_images_are_compared_by_their_y_without_a_border_as_eight_bits() -> None:
    outputs, targets = 1.4 * pictures(2, 3, 20, 1) - 0.2, (pictures(2, 3, 20, 2) * 255).round() / 255
    meter = SuperResolution(RestorationSettings(scale=3)).meter()
    meter.update(outputs, targets)
    pair = [luma((each * 255).round().clamp(0, 255))[..., 3:-3, 3:-3] for each in (outputs, targets)]
    expected = {"psnr": float(psnr(*pair, 255).mean()), "ssim": float(ssim(*pair, 255).mean())}
    assert meter.values() == pytest.approx(expected)


def test_clean_images_are_compared_whole_clipped_and_not_rounded() -> None:
    outputs, targets = 1.4 * pictures(2, 3, 20, 1) - 0.2, pictures(2, 3, 20, 2)
    meter = Denoising().meter()
    meter.update(outputs, targets)
    pair = (255 * outputs.clamp(0, 1), 255 * targets)
    expected = {"psnr": float(psnr(*pair, 255).mean()), "ssim": float(ssim(*pair, 255).mean())}
    assert meter.values() == pytest.approx(expected)
    quick = Denoising().quick_meter()
    quick.update(outputs, targets)
    assert quick.values()["psnr"] == meter.values()["psnr"]


def test_losses_are_for_pixels_in_the_unit_range() -> None:
    said = replace(data(), preprocessing=Preprocessing(mean=(0,), std=(1 / 255,)))
    task = SuperResolution().configured(said)
    outputs, targets = pictures(2, 3, 8, 1), pictures(2, 3, 8, 2)
    torch.testing.assert_close(task.loss(255 * outputs, targets), (outputs - targets).abs().mean())
    squared = task.configured(replace(said, restoration=RestorationSettings(loss="mse")))
    torch.testing.assert_close(squared.loss(255 * outputs, targets), (outputs - targets).square().mean())


def test_conventions_are_in_words() -> None:
    assert "65.738 R" in SuperResolution().in_words()["PSNR and SSIM"]
    assert "not rounded" in Denoising().in_words()["PSNR and SSIM"]
    assert Denoising(RestorationSettings(sigma=50)).in_words()["Noise"].startswith("Gaussian, sigma 50 of 255")
    assert find_task(None).in_words() == {}


@pytest.mark.parametrize("size", [(17, 23), (16, 24), (5, 40), (33, 64)])
def test_padding_changes_nothing_that_is_kept(size: tuple[int, int]) -> None:
    images = torch.rand(1, 3, *size)
    seen: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        seen.append(x)
        return Enlarged()(x)

    found = padded(run, images, 8)
    assert found.shape[-2:] == (2 * size[0], 2 * size[1])
    assert all(side % 8 == 0 for side in seen[0].shape[-2:])
    torch.testing.assert_close(found[..., :-1, :-1], Enlarged()(images)[..., :-1, :-1])


class Fourths(nn.Module):
    """Takes multiples of 4 alone: others make it fail, or come out smaller."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        again = F.interpolate(F.max_pool2d(x, 4), scale_factor=4.0)
        return x + again if self.fails else again


@pytest.mark.parametrize("fails", [True, False])
def test_a_network_for_certain_sides_is_refused_with_the_multiple_it_wants(fails: bool) -> None:
    model = Fourths(fails)
    with pytest.raises(InputError, match=r"images of 22x21 pixels(.|\n)*multiples of 4(.|\n)*--multiple 4 "):
        Denoising().run(model, torch.rand(1, 1, 21, 22))
    with pytest.raises(InputError, match=r"multiples of 12"):
        fitting(model, torch.rand(1, 1, 21, 22), scale=1, multiple=3)
    assert Denoising(RestorationSettings(multiple=4)).run(model, torch.rand(1, 1, 21, 22)).shape == (1, 1, 21, 22)


def test_a_network_that_no_multiple_helps_fails_as_it_did() -> None:
    with pytest.raises(RuntimeError, match="normalized_shape"):
        Denoising().run(nn.LayerNorm(7), torch.rand(1, 1, 21, 22))


@pytest.mark.parametrize("size", [(100, 70), (64, 64), (65, 200), (40, 150)])
def test_tiles_are_the_whole_where_a_network_sees_less_than_their_margin(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build(Architecture("restore:dncnn", {"depth": 4, "width": 4, "in_channels": 1})).eval()
    images = torch.rand(1, 1, *size)
    sides = []

    def run(x: Tensor) -> Tensor:
        sides.append(tuple(x.shape[-2:]))
        return call(model, x)  # type: ignore[no-any-return]

    with torch.no_grad():
        found, whole = in_tiles(run, images, 64), model(images)
    assert set(sides) == {(64, 64)}
    if min(size) >= 64:
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert found.shape == whole.shape


def test_a_network_says_of_what_its_sides_are_multiples() -> None:
    model = build(Architecture("restore:unet", {"depth": 3, "width": 4, "in_channels": 1})).eval()
    with pytest.raises(RuntimeError):
        model(torch.rand(1, 1, 21, 30))
    task = Denoising()
    assert task.run(model, torch.rand(1, 1, 21, 30)).shape == (1, 1, 21, 30)
    tiled = Denoising(RestorationSettings(tile=20))
    assert tiled.run(model, torch.rand(1, 1, 50, 30)).shape == (1, 1, 50, 30)
    splits = nothing(1)
    assert task.counted(model, splits) == {"1280x720": (1, 1, 720, 1280)}
    assert SuperResolution(RestorationSettings(scale=4)).counted(model, splits) == {"1280x720": (1, 1, 184, 320)}


@pytest.mark.parametrize(
    ("task", "output", "message"),
    [
        (SuperResolution(), torch.zeros(1, 3, 96, 96), r"makes images 4 times larger(.|\n)*--scale 4"),
        (Denoising(), torch.zeros(1, 3, 48, 48), r"images 2 times larger(.|\n)*--task super-resolution --scale 2"),
        (SuperResolution(), torch.zeros(1, 3, 24, 24), r"leaves images as small(.|\n)*expected: 2 times"),
        (SuperResolution(), torch.zeros(1, 10), r"no image like the one it is given(.|\n)*\(1, 3, 48, 48\)"),
        (Denoising(), torch.zeros(1, 1, 24, 24), r"no image like the one it is given"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(task: Task, output: Tensor, message: str) -> None:
    splits = nothing(3)
    with pytest.raises(InputError, match=message):
        task.check(output, splits)


def test_data_sets_are_for_their_tasks() -> None:
    with pytest.raises(InputError, match=r"digits are not for the task denoising(.|\n)*photos or images"):
        Denoising().splits(DataSettings())
    with pytest.raises(InputError, match=r"photos have no classes(.|\n)*--task super-resolution"):
        load_splits(DataSettings("photos"))
    odd = replace(data(), preprocessing=Preprocessing(channels="bgr"))
    with pytest.raises(InputError, match=r"neither resized nor turned round(.|\n)*channels bgr"):
        Denoising().splits(odd)
    with pytest.raises(InputError, match="has no labels to smooth"):
        Denoising().smoothed(0.1)
