from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from metaprune_cli.config import OptimizerName, OptimSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.tasks import Classification
from metaprune_cli.training.loop import FitResult, fit
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.state import TrainState
from metaprune_cli.training.zeros import zeros_kept

CPU = torch.device("cpu")
SPARSE = ("stem.weight", "inner.weight")


@pytest.fixture
def sparse(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name in SPARSE:
            weight = model.get_parameter(name)
            weight *= weight.abs() > weight.abs().median()
    return model


def tuned(model: nn.Module, train: ImageSplit, optimizer: OptimizerName, **more: Any) -> FitResult:
    settings = OptimSettings(epochs=3, lr=0.05, momentum=0.9, weight_decay=0.1, optimizer=optimizer)
    put_back_ = zeros_kept(model, SPARSE, CPU)
    return fit(
        model, train, settings, task=Classification(), batch_size=20, augment=False, seed=0, device=CPU,
        progress=Silence(), after_step=put_back_, **more,
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_stay_zero_and_nothing_else_does(sparse: nn.Module, train: ImageSplit, optimizer: OptimizerName) -> None:
    before = {name: parameter.detach().clone() for name, parameter in sparse.named_parameters()}
    after = dict(tuned(sparse, train, optimizer).model.named_parameters())
    for name in SPARSE:
        assert torch.equal(after[name] == 0, before[name] == 0)
        assert not torch.equal(after[name], before[name])
    assert bool((after["outer.weight"] != 0).all())


def test_without_it_they_do_not(sparse: nn.Module, train: ImageSplit) -> None:
    settings = OptimSettings(epochs=1, lr=0.05)
    more = {"task": Classification(), "batch_size": 20, "augment": False, "seed": 0}
    result = fit(sparse, train, settings, **more, device=CPU, progress=Silence())  # type: ignore[arg-type]
    assert bool((result.model.get_parameter("inner.weight") != 0).all())


def test_a_resumed_run_keeps_them_too_and_ends_with_the_same_bits(sparse: nn.Module, train: ImageSplit) -> None:
    states: list[TrainState] = []
    whole = tuned(sparse, train, "sgd", on_epoch=states.append).model.state_dict()
    resumed = tuned(sparse, train, "sgd", state=states[0]).model.state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
