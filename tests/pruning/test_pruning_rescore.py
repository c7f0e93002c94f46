"""Units chosen in steps: each step scores what the one before has left, as if that were the whole model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.api.prune import prune
from metaprune_cli.config import PruneSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.pruning.targets import Target
from metaprune_cli.workflows.lineage import descent


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for into, outof in ((3, 24), (24, 32), (32, 24), (24, 16)):
        layers += [nn.Conv2d(into, outof, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    for number, convolution in enumerate(m for m in model if isinstance(m, nn.Conv2d)):
        convolution.weight.data.mul_(torch.rand(len(convolution.weight), 1, 1, 1) * (1 + number))
    return model


def weights(model: nn.Module) -> list[Tensor]:
    return [module.weight.detach() for module in model.modules() if isinstance(module, nn.Conv2d)]


X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_steps_are_the_removals_that_people_make_one_after_the_other() -> None:
    model, steps, whole = net(), 3, encode(net(), X).macs
    in_steps = prune(model, X, speedup=3, rescore=steps, max_ratio=0.999)
    by_hand = model
    for number in range(1, steps + 1):
        factor = encode(by_hand, X).macs / (whole / 3 ** (number / steps))
        by_hand = prune(by_hand, X, speedup=factor, normaliser="mean", max_ratio=0.999).model
    assert [w.shape for w in weights(in_steps.model)] == [w.shape for w in weights(by_hand)]
    assert all(torch.equal(a, b) for a, b in zip(weights(in_steps.model), weights(by_hand), strict=True))
    at_once = prune(model, X, speedup=3, normaliser="mean", max_ratio=0.999)
    assert not torch.equal(in_steps.plan.kept, at_once.plan.kept)
    assert in_steps.report["rescore"] == steps
    assert in_steps.settings.normaliser == "mean"


@pytest.mark.parametrize("criterion", ["bn-scale", "fpgm", "lamp", "random"])
def test_every_criterion_scores_what_is_left(criterion: str) -> None:
    assert prune(net(), X, speedup=2, criterion=criterion, rescore=4).plan.speedup >= 2


@pytest.mark.parametrize("target", ["params=2x", "size=20KB", "macs=40%"])
def test_there_is_a_way_to_every_quantity(target: str) -> None:
    found = prune(net(), X, target=target, rescore=5)
    assert found.plan.achieved >= found.plan.requested * 0.999


def test_every_step_takes_the_same_share() -> None:
    factors = [step.factor for step in Target("macs", factor=8.0).steps(3, 100.0)]
    assert factors == pytest.approx([2, 4, 8])
    steps = Target("params", limit=25.0).steps(2, 100.0)
    assert [step.limit_for(100.0) for step in steps] == pytest.approx([50, 25])


def test_there_is_none_to_a_drop() -> None:
    with pytest.raises(InputError, match="cannot be combined with a target of drop"):
        PruneSettings(target=("drop=0.5",), rescore=2)


def test_the_arm_says_so() -> None:
    step = {"command": "prune", "requested": 2.0, "criterion": "group-l2", "scope": "global", "rescore": 20}
    assert descent((step,), Path("m.safetensors")).arm == "rescored"
