"""``mp.search`` computes what the command does, and takes weights from wherever somebody says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import metaprune_cli as mp
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning.cost import Cost

SETTINGS = mp.SearchSettings(population=6, iterations=2, images=64, verify=64, leaders=2, repair_images=32)
EXAMPLE = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(Architecture("cifar:resnet8", {"width": 0.5}, (3, 8, 8))).eval()


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(200, 3, 8, 8, generator=generator), torch.randint(10, (200,), generator=generator)


class Whole:
    """The model's own weights, as if somebody had made them, and what was asked of them."""

    repair, space = "bn", None

    def __init__(self, model: torch.nn.Module) -> None:
        self.tensors, self.asked = model.state_dict(), list[Tensor]()

    def tensors_for(self, kept: Tensor) -> Mapping[str, Tensor]:
        self.asked.append(kept)
        return self.tensors


def test_a_smaller_model_and_all_that_was_tried(model: torch.nn.Module, data: tuple[Tensor, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = mp.search(model, EXAMPLE, 2, data=data, settings=SETTINGS)
    assert [leader.how for leader in found.leaders[:4]] == ["plain", "uniform", "rescored", "sensitivity"]
    assert found.pruned.plan.speedup >= 2
    assert mp.count_macs(found.model, EXAMPLE) == found.pruned.plan.macs_after
    assert len(found.history.candidates) == 12
    graph = mp.encode(model, EXAMPLE)
    limit = Cost.of(graph).macs(torch.ones(graph.units.num_units, dtype=torch.bool)) / 2
    assert all(candidate.cost <= limit for candidate in found.history.candidates)
    best = min(leader.verified.fitness for leader in found.leaders[:2])
    assert found.chosen.verified.fitness <= best
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again = mp.search(model, EXAMPLE, 2, data=data, settings=SETTINGS)
    assert again.history == found.history


def test_weights_may_come_from_elsewhere(model: torch.nn.Module, data: tuple[Tensor, Tensor]) -> None:
    weights = Whole(model)
    found = mp.search(model, EXAMPLE, 2, data=data, settings=SETTINGS, weights=weights)
    assert len(weights.asked) >= len(found.history.candidates)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": object()}, "does not provide weights for widths"),
        ({"target": "drop=1"}, "cannot be searched for with a target of drop"),
        ({"rules": [mp.PruningRule("nowhere", ignore=True)]}, "matches nothing"),
        ({"jobs": -1}, "That many jobs cannot be run"),
    ],
)
def test_what_cannot_be_searched_is_said(
    options: dict[str, object], text: str, model: torch.nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(mp.MetapruneError, match=text):
        mp.search(model, EXAMPLE, 2, data=data, settings=SETTINGS, **options)


def test_a_model_of_nan_cannot_be_searched(model: torch.nn.Module, data: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(mp.MetapruneError, match="not finite"):
        mp.search(model, EXAMPLE, 2, data=data, settings=SETTINGS)
