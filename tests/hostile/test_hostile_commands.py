"""Hostile and damaged files through the commands: an exit code of the documented ones, no signal, no hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from sound import Sound, make
from storm import Tally, storm

FEW, MANY = 40, 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storm")


@pytest.fixture(scope="module")
def sound(folder: Path) -> list[Sound]:
    return make(folder)


def said(tally: Tally) -> list[str]:
    return [f"{end.code} after {end.seconds:.0f} s: {case.command}: {case.what}" for case, end in tally.wrong]


def test_a_few_of_every_kind(folder: Path, sound: list[Sound]) -> None:
    assert said(storm(folder, sound, FEW, FEW, seed=1)) == []


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_ten_thousand_of_either_sort(folder: Path, sound: list[Sound]) -> None:
    assert said(storm(folder, sound, MANY, MANY, seed=0)) == []
