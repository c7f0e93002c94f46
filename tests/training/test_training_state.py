from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.training.state import Best, TrainState, snapshot


def trained(optimizer_class: type[torch.optim.Optimizer], **options: float) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)  # type: ignore[call-arg]
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.arange(6.0).view(2, 3)).square().sum().backward()
    optimizer.step()


def assert_equal(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
        assert actual[name].dtype == tensor.dtype


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(torch.optim.SGD, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {})],
    ids=["sgd", "momentum", "adamw"],
)
def test_taken_apart_and_put_together_it_goes_on_as_the_original(
    optimizer_class: type[torch.optim.Optimizer], options: dict[str, float]
) -> None:
    model, optimizer = trained(optimizer_class, **options)
    state = TrainState.of(model, optimizer, [{"epoch": 1, "loss": 0.1 + 0.2}], epoch=1)
    tensors, document = state.to_parts()
    again = TrainState.from_parts(tensors, json.loads(json.dumps(document, allow_nan=False)))
    assert again.history == state.history
    assert again.epoch == 1

    other, other_optimizer = trained(optimizer_class, **options)
    step(other, other_optimizer)
    again.restore_(other, other_optimizer)
    for _ in range(2):
        step(model, optimizer)
        step(other, other_optimizer)
    assert_equal(other.state_dict(), model.state_dict())


def test_training_on_changes_neither_a_snapshot_nor_what_it_is_restored_from() -> None:
    model, optimizer = trained(torch.optim.AdamW)
    state = TrainState.of(model, optimizer, [], epoch=1, best=Best(1, 0.5, snapshot(model)))
    before = {name: tensor.clone() for name, tensor in state.to_parts()[0].items()}
    step(model, optimizer)
    state.restore_(model, optimizer)
    step(model, optimizer)
    assert_equal(state.to_parts()[0], before)


def test_the_best_weights_survive() -> None:
    model, optimizer = trained(torch.optim.SGD)
    state = TrainState.of(model, optimizer, [], epoch=4, best=Best(2, 0.25, snapshot(model)))
    again = TrainState.from_parts(*state.to_parts())
    assert again.best is not None
    assert (again.best.epoch, again.best.score) == (2, 0.25)
    assert_equal(again.best.weights, model.state_dict())


@pytest.mark.parametrize("document", [{}, {"epoch": 1}, {"epoch": 1, "history": None, "best": None}])
def test_a_document_of_something_else_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(CorruptFileError, match="does not describe the state of a training run"):
        TrainState.from_parts({}, document)


def test_tensors_of_something_else_are_refused() -> None:
    with pytest.raises(CorruptFileError, match="does not describe the state of a training run"):
        TrainState.from_parts({"weight": torch.zeros(1)}, {"epoch": 0, "history": [], "best": None})


def test_the_state_of_another_model_is_refused() -> None:
    state = TrainState.of(*trained(torch.optim.SGD), [], epoch=1)
    other = nn.Linear(2, 2)
    with pytest.raises(CorruptFileError, match=r"that of another model(.|\n)*without --resume"):
        state.restore_(other, torch.optim.SGD(other.parameters(), lr=0.1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"best": Best(1, 0.5, {"0.weight": torch.zeros(9, 9)})}, "best/0.bias: missing"),
        ({"model": {"x": torch.zeros(1)}}, "model/'x': not in the model"),
        ({"optimizer": {7: {}}}, "optimizer/7: expected one of 4 parameters"),
        ({"optimizer": {0: {"step": torch.tensor(1.0)}}}, "optimizer/0/exp_avg: missing"),
        (
            {"optimizer": {0: {name: torch.zeros(1, 1) for name in ("step", "exp_avg", "exp_avg_sq")}}},
            r"expected \[4, 3\], got torch.float32 \[1, 1\]",
        ),
    ],
)
def test_a_state_of_other_sizes_is_refused_before_anything_is_restored(change: dict[str, object], said: str) -> None:
    model, optimizer = trained(torch.optim.AdamW)
    state = replace(TrainState.of(model, optimizer, [{"epoch": 1}], epoch=1), **change)  # type: ignore[arg-type]
    other, other_optimizer = trained(torch.optim.AdamW)
    with pytest.raises(CorruptFileError, match=said):
        state.restore_(other, other_optimizer)
