"""Images as a model takes them: its mean, deviation, size, crop, interpolation and order of channels."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import v2

from metaprune_cli.config import NOTHING_SAID, DataSettings, Preprocessing
from metaprune_cli.data import load_splits
from metaprune_cli.data.image_split import Preparation
from metaprune_cli.data.resizing import fitted, resized_squares
from metaprune_cli.errors import InputError
from metaprune_cli.models.published import published
from metaprune_cli.workflows.made import Made

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def digits(**said: object) -> DataSettings:
    return DataSettings(train_limit=200, preprocessing=Preprocessing(**said))


def first(settings: DataSettings) -> torch.Tensor:
    images: torch.Tensor = next(load_splits(settings).val.batches(4)).inputs
    return images


def test_what_is_not_said_is_the_data_sets_bit_for_bit() -> None:
    assert torch.equal(first(digits()), first(DataSettings(train_limit=200)))
    assert torch.equal(first(digits(mean=(0.3053,), std=(0.3760,))), first(digits()))


def test_mean_and_deviation_are_the_models() -> None:
    plain, said = first(digits(mean=(0.0,), std=(1.0,))), first(digits(mean=(0.25,), std=(0.5,)))
    torch.testing.assert_close(said, (plain - 0.25) / 0.5)
    assert plain.min() == 0
    assert plain.max() == 1


def test_images_get_the_models_size() -> None:
    assert load_splits(digits(image_size=12)).input_shape == (1, 1, 12, 12)
    bilinear, nearest = first(digits(image_size=16)), first(digits(image_size=16, interpolation="nearest"))
    torch.testing.assert_close(nearest, F.interpolate(first(digits()), (16, 16)))
    assert not torch.equal(bilinear, nearest)


def test_a_crop_keeps_the_middle() -> None:
    pixels = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    middle = resized_squares(pixels, 4, Preprocessing(crop=0.5))
    assert torch.equal(middle, pixels[:, :, 2:6, 2:6])


def test_channels_are_turned_round_before_they_are_normalised() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    made = Preparation((0.5, 0.0, 0.0), (1.0, 1.0, 2.0), backwards=True).normalised(pixels)
    torch.testing.assert_close(made.flatten(), torch.tensor([0.5, 0.2, 0.0]))


@pytest.mark.parametrize("size", [(64, 64), (500, 375), (300, 700)])
def test_pictures_are_resized_and_cropped_as_torchvision_does(size: tuple[int, int]) -> None:
    picture = Image.effect_noise(size, 50).convert("RGB")
    plain = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    assert fitted(picture, (224, 224), NOTHING_SAID) == plain(picture)
    bicubic = v2.Compose([v2.Resize(236, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    assert fitted(picture, (224, 224), Preprocessing(crop=0.95, interpolation="bicubic")) == bicubic(picture)


def test_figures_for_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"(?s)a different number of channels.*each of the 1 channels.*0\.485 0\.456"):
        load_splits(digits(mean=IMAGENET[0]))


def test_what_is_said_goes_before_and_the_rest_stays() -> None:
    own = Preprocessing(mean=(0.5,), std=(0.2,), image_size=96)
    assert Preprocessing(mean=(0.1,)).over(own) == Preprocessing(mean=(0.1,), std=(0.2,), image_size=96)
    assert NOTHING_SAID.over(own) == own
    assert Preprocessing.from_document(own.to_document()) == own
    assert NOTHING_SAID.to_document() == {}


def test_runs_of_before_are_still_done() -> None:
    assert "preprocessing" not in Made.by("zoo", data=DataSettings()).parameters["data"]
    assert Made.by("zoo", data=digits(mean=(0.5,))).parameters["data"]["preprocessing"]["mean"] == [0.5]


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:ResNet18_Weights.IMAGENET1K_V1"])
def test_that_of_published_weights_is_known_by_name(name: str) -> None:
    mean, std = IMAGENET
    assert published(name) == Preprocessing(mean, std, 224, 0.875, "bilinear")


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet19", "keras:resnet50", "torchvision:No_Weights.V1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"(?s)no known weights with this name.*--mean"):
        published(name)


@pytest.mark.parametrize(
    ("name", "figures"),
    [("timm:convnext_atto", IMAGENET), ("timm:vit_tiny_patch16_224.augreg_in21k", ((0.5,) * 3, (0.5,) * 3))],
)
def test_that_of_a_timm_model_is_known_by_name(name: str, figures: tuple[tuple[float, ...], ...]) -> None:
    pytest.importorskip("timm")
    found = published(name)
    assert (found.mean, found.std) == figures
    assert (found.image_size, found.interpolation) == (224, "bicubic")
    with pytest.raises(InputError, match="no known weights with this name"):
        published("timm:no_such_model")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaprune_cli.models.optional.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"(?s)timm is not installed.*pip install 'metaprune\[hf\]'"):
        published("timm:convnext_atto")
