from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from metaprune_cli.config import OptimSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.pruning import unit_scores
from metaprune_cli.tasks import Classification, measure
from metaprune_cli.training.loop import FitResult, fit, recalibrate_
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.state import TrainState

CPU = torch.device("cpu")
SGD = OptimSettings(epochs=4, lr=0.1)
ADAMW = OptimSettings(epochs=4, lr=0.01, optimizer="adamw", label_smoothing=0.1, warmup_epochs=1)


class Recorder(Silence):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, label: str, total: int) -> None:
        self.told.append((label, total))

    def step(self, **figures: float) -> None:
        self.told.append(sorted(figures))

    def end(self) -> None:
        self.told.append("end")


def fitted(
    model: nn.Module,
    train: ImageSplit,
    settings: OptimSettings = SGD,
    *,
    val: ImageSplit | None = None,
    state: TrainState | None = None,
    seed: int = 3,
    progress: Silence | None = None,
    graph: NeuronGraph | None = None,
) -> tuple[FitResult, list[TrainState]]:
    states: list[TrainState] = []
    result = fit(
        model,
        train,
        settings,
        task=Classification(),
        batch_size=32,
        augment=True,
        seed=seed,
        device=CPU,
        progress=progress or Silence(),
        val=val,
        graph=graph,
        state=state,
        on_epoch=states.append,
    )
    return result, states


def assert_same(actual: nn.Module, expected: nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], tensor), name


def test_it_learns(model: nn.Module, train: ImageSplit, val: ImageSplit) -> None:
    result, _ = fitted(model, train, replace(SGD, epochs=30), val=val)
    assert measure(result.model, val.batches(40), CPU, Classification()).headline > 90
    assert not result.model.training


def test_the_argument_is_not_changed(model: nn.Module, train: ImageSplit) -> None:
    before = copy.deepcopy(model)
    fitted(model, train)
    assert_same(model, before)
    assert model.training


def test_frozen_parameters_stay(model: nn.Module, train: ImageSplit) -> None:
    result, _ = fitted(model, train)
    assert torch.equal(result.model.get_parameter("head.bias"), model.get_parameter("head.bias"))


@pytest.mark.parametrize("settings", [SGD, ADAMW, replace(SGD, recalibrate=True)], ids=["sgd", "adamw", "recalibrate"])
@pytest.mark.parametrize("killed_after", [1, 3, 4])
def test_resumed_equals_uninterrupted(
    model: nn.Module, train: ImageSplit, val: ImageSplit, settings: OptimSettings, killed_after: int
) -> None:
    whole, states = fitted(model, train, settings, val=val)
    state = TrainState.from_parts(*states[killed_after - 1].to_parts())
    torch.manual_seed(99)  # whatever happened in between
    resumed, later = fitted(model, train, settings, val=val, state=state)
    assert_same(resumed.model, whole.model)
    assert resumed.history == whole.history
    assert [state.epoch for state in later] == list(range(killed_after + 1, 5))


def test_the_seed_decides(model: nn.Module, train: ImageSplit) -> None:
    first, _ = fitted(model, train, seed=1)
    again, _ = fitted(model, train, seed=1)
    other, _ = fitted(model, train, seed=2)
    assert_same(again.model, first.model)
    assert not torch.equal(other.model.get_parameter("stem.weight"), first.model.get_parameter("stem.weight"))


def test_a_run_of_the_same_data_leaves_the_callers_generator_alone(model: nn.Module, train: ImageSplit) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    fitted(model, train)
    assert torch.equal(torch.rand(2), expected)


def test_history_and_progress(model: nn.Module, train: ImageSplit, val: ImageSplit) -> None:
    recorder = Recorder()
    result, _ = fitted(model, train, replace(SGD, epochs=2), val=val, progress=recorder)
    assert [record["epoch"] for record in result.history] == [1, 2]
    figures = ["epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1"]
    assert sorted(result.history[0]) == figures
    epochs = [[("epoch 1", 3), [], [], [], "end", figures], [("epoch 2", 3), [], [], [], "end", figures]]
    assert recorder.told == [("train", 2), *epochs[0], *epochs[1], "end"]


def test_nan_stops_and_names_the_parameter(model: nn.Module, train: ImageSplit) -> None:
    with torch.no_grad():
        model.get_parameter("outer.weight")[0, 0] = float("nan")
    with pytest.raises(NumericsError, match=r"training loss is nan in epoch 1(.|\n)*outer\.weight"):
        fitted(model, train)


def test_divergence_stops(model: nn.Module, train: ImageSplit) -> None:
    with pytest.raises(NumericsError, match=r"training loss is (.|\n)*smaller learning rate"):
        fitted(model, train, replace(SGD, lr=1e20, schedule="constant"))


def test_no_images(model: nn.Module, train: ImageSplit) -> None:
    with pytest.raises(InputError, match="no images to train on"):
        fitted(model, train.subset(0, seed=0))


def test_a_split_smaller_than_a_batch_is_one_batch(model: nn.Module, train: ImageSplit) -> None:
    result, _ = fitted(model, train.subset(10, seed=0), replace(SGD, epochs=1))
    assert len(result.history) == 1


def test_no_epochs_is_recalibration_alone(model: nn.Module, train: ImageSplit) -> None:
    result, states = fitted(model, train, OptimSettings(epochs=0, recalibrate=True))
    assert not states
    recalibrate_(model, train, 100, batch_size=32, augment=True)  # as it trains
    assert_same(result.model, model)


def test_recalibrated_statistics_are_those_of_the_batches(train: ImageSplit) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36)).train()
    recalibrate_(model, train, 1, batch_size=len(train))
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    pixels = torch.cat([images for images, _ in train.batches(100)]).flatten(1)
    torch.testing.assert_close(norm.running_mean, pixels.mean(0))
    torch.testing.assert_close(norm.running_var, pixels.var(0))


def test_recalibration_touches_statistics_only(model: nn.Module, train: ImageSplit) -> None:
    before = copy.deepcopy(model)
    before_modes = [module.training for module in model.modules()]
    recalibrate_(model, train, 2, batch_size=32)
    assert [module.training for module in model.modules()] == before_modes
    for name, parameter in before.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    assert [norm.momentum for norm in norms] == [0.1]
    assert [int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None] == [2]


def test_recalibrating_a_model_without_batchnorm_does_nothing(train: ImageSplit) -> None:
    recalibrate_(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), train, 2, batch_size=32)


def test_sparse_learning_pulls_the_least_important_units_down(model: nn.Module, train: ImageSplit) -> None:
    graph = encode(model.eval(), torch.zeros(1, 1, 6, 6))
    lowest = []
    for sparsity in (0.0, 0.05):
        result, _ = fitted(model, train, replace(SGD, epochs=10, sparsity=sparsity), graph=graph)
        scores = unit_scores(graph, result.model.state_dict(), "group-l2")
        lowest.append(min(float(scores[f.units].min()) for f in graph.units.families if f.locked is None))
    assert lowest[1] < 0.5 * lowest[0]


def test_sparse_learning_resumes(model: nn.Module, train: ImageSplit) -> None:
    graph, settings = encode(model.eval(), torch.zeros(1, 1, 6, 6)), replace(SGD, sparsity=0.01)
    whole, states = fitted(model, train, settings, graph=graph)
    resumed, _ = fitted(model, train, settings, graph=graph, state=TrainState.from_parts(*states[1].to_parts()))
    assert_same(resumed.model, whole.model)
