"""Checkpoints with NumPy's numbers beside the weights open without trust; what is no number does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.models.numpy_scalars import NumberType, number
from metaprune_cli.models.pickles import open_pickle

NUMBERS = (np.float64(93.39), np.float32(0.5), np.float16(-2), np.int64(-7), np.uint8(200), np.bool_(True))


def _saved(value: Any, path: Path) -> Path:
    torch.save({"state_dict": {"w": torch.ones(2)}, "best": value}, path)
    return path


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: type(value).__name__)
def test_a_number_is_read_as_pythons(value: Any, tmp_path: Path) -> None:
    found = open_pickle(_saved(value, tmp_path / "a.pt"), trust_pickle=False)
    assert isinstance(found, dict)
    assert found["best"] == value.item()
    assert type(found["best"]) in (bool, int, float)


@pytest.mark.parametrize(
    "value", [np.array([1.0, 2.0]), np.datetime64("2020-01-01"), np.complex64(1j), np.array([{}], dtype=object)]
)
def test_anything_else_needs_trust(value: Any, tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError):
        open_pickle(_saved(value, tmp_path / "a.pt"), trust_pickle=False)


@pytest.mark.parametrize("data", [b"\0" * 7, b"\0" * 9, "text", None, bytearray(8)])
def test_bytes_that_are_no_number_are_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="scalar of NumPy"):
        number(NumberType("f8", False, True), data)


def test_objects_are_no_numbers() -> None:
    with pytest.raises(TypeError, match="numbers of NumPy's type 'O8'"):
        NumberType("O8", False, True)
    with pytest.raises(TypeError, match="that is not a number"):
        number(np.dtype("f8"), b"\0" * 8)
