"""A small model of digits with statistics of its own, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from api_calling import DIGITS
from torch import nn

import metaprune as mp
from metaprune_cli.models import Architecture, build


@pytest.fixture(scope="session")
def images() -> mp.Splits:
    return mp.load_splits(DIGITS)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory, images: mp.Splits) -> Path:
    args = {"width": 0.25, "in_channels": 1, "image_size": 8, "num_classes": 10}
    architecture = Architecture("cifar:resnet8", args, (1, 8, 8))
    torch.manual_seed(0)
    model = build(architecture).train()
    for inputs, _ in images.train.batches(40):
        model(inputs)
    path = tmp_path_factory.mktemp("api") / "digits.safetensors"
    mp.save_model(model.eval(), path, arch=architecture)
    return path


@pytest.fixture
def model(model_file: Path) -> nn.Module:
    return mp.load_model(model_file)
