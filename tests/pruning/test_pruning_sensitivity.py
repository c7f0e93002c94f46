"""One family at a time: what goes, and how much can be borne."""

from __future__ import annotations

import pytest
import torch

from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning.sensitivity import bearable, without_lowest


def test_the_lowest_of_one_family_go_and_one_stays() -> None:
    arch = Architecture("cifar:resnet8", {"width": 0.5, "in_channels": 1}, (1, 8, 8))
    units = encode(build(arch).eval(), torch.zeros(1, 1, 8, 8)).units
    scores = torch.rand(units.num_units, generator=torch.Generator().manual_seed(0))
    for family in units.families:
        if family.locked is None:
            for ratio in (0.01, 0.5, 0.999):
                gone = (~without_lowest(units, family, scores, ratio)).nonzero().flatten()
                assert set(gone.tolist()) < set(family.units.tolist())
                assert len(gone) == min(max(round(ratio * len(family.units)), 1), len(family.units) - 1)
                stays = scores[family.units[~torch.isin(family.units, gone)]]
                assert scores[gone].max() <= stays.min()


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        ({0.25: 0.5, 0.5: 2.5}, 0.3125),  # a quarter of the way from 0.5 to 2.5
        ({0.25: 4.0, 0.5: 0.0}, 0.0625),  # nothing beyond the first that costs too much
        ({0.25: -1.0, 0.5: 0.9}, 0.5),  # all that was tried
        ({0.5: 2.0, 0.25: 0.0}, 0.375),  # in whatever order
    ],
)
def test_what_can_be_borne(drops: dict[float, float], expected: float) -> None:
    assert bearable(drops, 1.0) == pytest.approx(expected)
