"""Folders of small photographs, made of noise that is blurred."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, channels)).astype(np.uint8)
    large = np.kron(small, np.ones((8, 8, 1), np.uint8))[:height, :width]
    return large[..., 0] if channels == 1 else large


def fill(folder: Path, count: int = 2, size: tuple[int, int] = (40, 56), channels: int = 3, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        Image.fromarray(picture(*size, channels, seed=number)).save(folder / f"{number:02}.png")
    return folder
