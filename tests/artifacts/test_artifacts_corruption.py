"""Damage anywhere in a file is a CorruptFileError: never a success, never another exception."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metaprune_cli.artifacts import is_artifact, read_artifact, read_document, write_artifact
from metaprune_cli.errors import CorruptFileError

DOCUMENT = {
    "architecture": {"name": "cifar:résnet8", "args": {"width": 0.5}, "input_shape": [1, 8, 8]},
    "made_by": {"command": "prune", "parameters": {"speedup": 1e-05, "text": '"\\\u2028\n'}},
    "metrics": {"top1": 97.25},
}


def sound() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        weight = torch.linspace(0, 1, 6).reshape(2, 3)
        write_artifact(path, "model", {"weight": weight, "steps": torch.tensor(0)}, DOCUMENT, {"m.pt": "ab" * 32})
        return path.read_bytes()


SOUND = sound()


def assert_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(data)
        with pytest.raises(CorruptFileError):
            read_artifact(path)
        with suppress(CorruptFileError):  # it sees the header only, and may not notice
            read_document(path)
        is_artifact(path)


@given(st.integers(0, 8 * len(SOUND) - 1))
def test_a_flipped_bit(bit: int) -> None:
    data = bytearray(SOUND)
    data[bit // 8] ^= 1 << (bit % 8)
    assert_refused(bytes(data))


@pytest.mark.slow
@pytest.mark.parametrize("byte", range(len(SOUND)))
def test_every_flipped_bit(byte: int) -> None:
    for bit in range(8):
        test_a_flipped_bit.hypothesis.inner_test(8 * byte + bit)  # type: ignore[attr-defined]


@given(st.integers(0, len(SOUND) - 1))
def test_a_truncated_file(length: int) -> None:
    assert_refused(SOUND[:length])


@given(st.binary(min_size=1, max_size=64))
def test_an_appended_tail(tail: bytes) -> None:
    assert_refused(SOUND + tail)


@given(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=32))
def test_overwritten_bytes(start: int, patch: bytes) -> None:
    data = SOUND[:start] + patch + SOUND[start + len(patch) :]
    if data != SOUND:
        assert_refused(data)


@given(st.binary(max_size=256))
def test_any_other_file(data: bytes) -> None:
    assert_refused(data)


def test_flipped_artifacts_are_still_taken_for_artifacts(tmp_path: Path) -> None:
    """Else a damaged model would be opened as somebody else's state dict, without a check."""
    for byte in range(len(SOUND)):
        data = bytearray(SOUND)
        data[byte] ^= 1
        (tmp_path / "a").write_bytes(data)
        assert is_artifact(tmp_path / "a")
