"""A model that does no better than guessing: what is said of it, and of which models nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.config import DataSettings, Preprocessing
from metaprune_cli.workflows.doubts import as_python, doubt
from metaprune_cli.workflows.task import task_of

GREYS = (112, 122, 133, 143)
"""One for each class; normalised as ImageNet is, they are no longer near each other."""


class Nearest(nn.Module):
    """The class whose grey is nearest, for pixels from 0 to 1."""

    def forward(self, images: Tensor) -> Tensor:
        return -(images.mean((1, 2, 3)).unsqueeze(1) - torch.tensor(GREYS) / 255).square()


class Guess(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.eye(4)[torch.zeros(len(images), dtype=torch.int64)]


@pytest.fixture
def images(tmp_path: Path) -> DataSettings:
    for grey in GREYS:
        folder = tmp_path / "train" / str(grey)
        folder.mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / f"{number}.png")
    return DataSettings(dataset="imagefolder", data_root=str(tmp_path), image_size=8)


def said(model: nn.Module, data: DataSettings, headline: float) -> str | None:
    task = task_of(data)
    return doubt(model, data, task.splits(data), task, headline, torch.device("cpu"))


def test_a_normalisation_that_suits_the_model_is_named(images: DataSettings) -> None:
    text = said(Nearest(), images, 25.0)
    assert text is not None
    assert "classifies only 25.0 % of the validation images correctly; guessing would give 25.0 %." in text
    assert "With --mean 0 --std 1 it is 100.0 %" in text


def test_in_python_it_is_an_argument(images: DataSettings) -> None:
    task = task_of(images)
    text = doubt(Nearest(), images, task.splits(images), task, 25.0, torch.device("cpu"), as_python)
    assert text is not None
    written = "mp.Preprocessing(mean=(0.0,), std=(1.0,))"
    assert f"With preprocessing={written} it is 100.0 %" in text
    assert eval(written, {"mp": mp}) == Preprocessing((0.0,), (1.0,))


def test_where_none_does_what_to_check_is_named(images: DataSettings) -> None:
    text = said(Guess(), images, 25.0)
    assert text is not None
    assert "With" not in text
    assert "--mean, --std, --image-size, --channels" in text


def test_a_model_that_has_learnt_something_is_not_doubted(images: DataSettings) -> None:
    plain = DataSettings("imagefolder", images.data_root, image_size=8, preprocessing=Preprocessing((0.0,), (1.0,)))
    assert said(Nearest(), plain, 100.0) is None
    assert said(Guess(), images, 36.0) is None  # guessing gives 25, and 10 points more are enough
