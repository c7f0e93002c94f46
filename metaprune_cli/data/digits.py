"""scikit-learn's handwritten digits: 1,797 grey images of 8×8 that come with the package, no download."""

from __future__ import annotations

import numpy as np
import torch

from metaprune_cli.config import DataSettings
from metaprune_cli.data.image_split import MemoryImages, stratified
from metaprune_cli.data.source import Part, Source

TEST_FRACTION = 0.3
BRIGHTEST = 16


def read_digits(settings: DataSettings, part: Part) -> Source | None:
    """One part of the digits; the test part is 30 % of every class, drawn by ``settings.split_seed``."""
    if part == "val":
        return None
    from sklearn.datasets import load_digits  # a second of import that no other dataset needs

    digits = load_digits()
    pixels = torch.tensor(np.round(digits.images * (255 / BRIGHTEST)).astype(np.uint8)).unsqueeze(1)
    labels = torch.tensor(digits.target.astype(np.int64))
    train, test = stratified(labels, TEST_FRACTION, settings.split_seed)
    chosen = train if part == "train" else test
    return Source(MemoryImages(pixels[chosen]), labels[chosen], num_classes=10)
