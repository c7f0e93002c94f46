"""How a search judges and chooses: paired, on images of their own, and what it remembers."""

from __future__ import annotations

import math

import pytest
import torch

from metaprune_cli.config import SearchSettings
from metaprune_cli.data import TensorSplit
from metaprune_cli.errors import CorruptFileError, InputError, NumericsError
from metaprune_cli.workflows.judging import UNFIT, Judged, _divided
from metaprune_cli.workflows.memory import from_tensors, to_tensors
from metaprune_cli.workflows.rank_check import tau_with_interval
from metaprune_cli.workflows.searching import Leader, choose

HARD = torch.linspace(0, 3, 32)
"""How hard every part of the images is, whoever is asked."""


def leader(how: str, lower: float, noise: float = 0.0) -> Leader:
    generator = torch.Generator().manual_seed(len(how))
    chance = torch.randn(32, generator=generator)
    parts = HARD - lower + noise * (chance - chance.mean())
    return Leader(how, (), None, Judged(tuple(parts.tolist()), 90.0))


def test_a_small_gain_that_is_no_chance_is_taken() -> None:
    found, (gain, error) = choose([leader("plain", 0.0), leader("uniform", -1.0), leader("mutation", 0.05, 0.01)])
    assert found.how == "mutation"
    assert gain == pytest.approx(0.05, abs=0.01)
    assert error < 0.01  # of the difference: by themselves the parts differ a hundred times as much


def test_a_gain_that_may_be_chance_is_left_for_the_better_baseline() -> None:
    found, (gain, error) = choose([leader("plain", 0.0), leader("uniform", 0.1), leader("mutation", 0.2, 1.0)])
    assert found.how == "uniform"
    assert gain < 2 * error


def test_what_is_worse_than_a_baseline_is_not_taken() -> None:
    found, gain = choose([leader("plain", 0.0), leader("uniform", -1.0), leader("crossover", -0.5)])
    assert (found.how, gain) == ("plain", (0.0, 0.0))


def test_nothing_that_can_be_judged_is_an_error() -> None:
    with pytest.raises(NumericsError, match="No widths can be judged"):
        choose([Leader("plain", (), None, UNFIT), Leader("uniform", (), None, UNFIT)])


def test_no_image_repairs_judges_and_verifies() -> None:
    split = TensorSplit(torch.arange(100.0)[:, None], torch.zeros(100))
    found = _divided(split, SearchSettings(images=30, verify=40), repairing=20)
    first = split.at(torch.randperm(100, generator=torch.Generator().manual_seed(0))[:20])
    taken = [set(part.inputs.flatten().tolist()) for part in (first, found["judging"], found["verifying"])]
    assert [len(part) for part in taken] == [20, 30, 40]
    assert len(set.union(*taken)) == 90
    few = _divided(split, SearchSettings(images=30, verify=60), repairing=40)
    assert (len(few["judging"]), len(few["verifying"])) == (20, 40)


def test_too_few_images_are_said() -> None:
    with pytest.raises(InputError, match="A search needs images to judge by"):
        _divided(TensorSplit(torch.zeros(1, 1), torch.zeros(1)), SearchSettings(), 0)


def test_what_was_judged_is_remembered_to_the_bit() -> None:
    known = {b"\x01\x00\x01": Judged((0.1, 1 / 3), 71.5), b"\x01\x01\x00": UNFIT}
    again = from_tensors(to_tensors(known), {})
    assert again[b"\x01\x00\x01"] == known[b"\x01\x00\x01"]
    assert again[b"\x01\x01\x00"].fitness == math.inf


@pytest.mark.parametrize(
    "change",
    [
        {"search/kept": None},
        {"search/parts": torch.zeros(3, 2)},
        {"search/headlines": torch.zeros(1, 1)},
        {"search/parts": torch.zeros(1, 0)},
    ],
)
def test_what_is_no_memory_is_refused(change: dict[str, torch.Tensor | None]) -> None:
    tensors = to_tensors({b"\x01\x00": Judged((0.1, 0.2), 50.0)}) | change
    with pytest.raises(CorruptFileError, match="does not describe the state of a search"):
        from_tensors({name: tensor for name, tensor in tensors.items() if tensor is not None}, {})


def test_kendalls_tau_and_its_interval() -> None:
    order = [float(n) for n in range(20)]
    assert tau_with_interval(order, order, 0)[0] == pytest.approx(1.0)
    assert tau_with_interval(order, order[::-1], 0)[0] == pytest.approx(-1.0)
    mixed = [float(n) for n in torch.randperm(20, generator=torch.Generator().manual_seed(0))]
    tau, low, high = tau_with_interval(order, mixed, 0)
    assert low < tau < high
    assert low < 0 < high
    assert tau_with_interval([math.inf] * 4, [1.0, 2.0, 3.0, 4.0], 0)[0] == 0
