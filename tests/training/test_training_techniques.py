"""What training may add to the plain loop: each does what it says, and a resumed run is the same run."""

from __future__ import annotations

import copy
import functools
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metaprune_cli.config import OptimSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.tasks import Classification, measure
from metaprune_cli.training.averaging import Average
from metaprune_cli.training.distillation import Teacher
from metaprune_cli.training.loop import RECALIBRATION_BATCHES, FitResult, fit, recalibrate_
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.state import Best, TrainState
from metaprune_cli.training.stopping import better_of, is_over

CPU = torch.device("cpu")
TOP1 = Classification.metrics[0]
PLAIN = OptimSettings(epochs=4, lr=0.1)
IMAGE = torch.zeros(1, 1, 6, 6)
TECHNIQUES = {
    "ema": replace(PLAIN, ema=0.9),
    "mixed": replace(PLAIN, mixup=0.4, cutmix=1.0),
    "teacher": replace(PLAIN, distill_weight=0.7, distill_temperature=2.0),
    "patience": replace(PLAIN, patience=2, stop_on="accuracy"),
    "bfloat16": replace(PLAIN, precision="bfloat16"),
    "all": replace(PLAIN, ema=0.8, mixup=0.4, cutmix=1.0, clip=0.5, patience=3, recalibrate=True),
}


class Crooked(nn.Module):
    """A classifier that takes no channels-last images."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.view(-1, 36))
        return logits


def fitted(
    model: nn.Module, train: ImageSplit, settings: OptimSettings, **more: Any
) -> tuple[FitResult, list[TrainState]]:
    states: list[TrainState] = []
    given = {
        "task": Classification(),
        "batch_size": 32,
        "augment": True,
        "seed": 3,
        "device": CPU,
        "progress": Silence(),
    } | more
    return fit(model, train, settings, on_epoch=states.append, **given), states


def assert_same(actual: nn.Module, expected: nn.Module) -> None:
    assert list(actual.state_dict()) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], tensor), name


@pytest.fixture
def teacher() -> nn.Module:
    torch.manual_seed(5)
    return Crooked().train()


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_resumed_equals_uninterrupted(
    model: nn.Module, teacher: nn.Module, train: ImageSplit, val: ImageSplit, technique: str
) -> None:
    more = {"val": val, "teacher": teacher if technique in ("teacher", "all") else None}
    whole, states = fitted(model, train, TECHNIQUES[technique], **more)
    state = TrainState.from_parts(*states[1].to_parts())
    torch.manual_seed(99)  # whatever happened in between
    resumed, _ = fitted(model, train, TECHNIQUES[technique], state=state, **more)
    assert_same(resumed.model, whole.model)
    assert (resumed.history, resumed.epoch) == (whole.history, whole.epoch)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_each_makes_a_difference(model: nn.Module, teacher: nn.Module, train: ImageSplit, technique: str) -> None:
    settings = replace(TECHNIQUES[technique], patience=0)
    if technique == "patience":
        settings = replace(settings, clip=0.1)  # the one that has no case of its own
    plain, _ = fitted(model, train, PLAIN)
    other, _ = fitted(model, train, settings, teacher=teacher if technique == "teacher" else None)
    assert not torch.equal(other.model.get_parameter("stem.weight"), plain.model.get_parameter("stem.weight"))


def test_the_average_is_the_one_that_the_docstring_says() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1)
    average, expected = Average(model, 0.5), 1.0
    for step in range(12):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update_(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert float(average.model.state_dict()["weight"]) == pytest.approx(expected)


def test_the_average_is_that_of_each_weight_to_the_bit_and_goes_on_from_a_state() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).double()
    model[0].weight.requires_grad_(False)
    expected, average = copy.deepcopy(model).requires_grad_(False), Average(model, 0.3)
    for step in range(8):
        if step == 5:  # as a resumed run does
            state = average.model.state_dict()
            average = Average(model, 0.3)
            average.model.load_state_dict(state)
        with torch.no_grad():
            for latest in (*model.parameters(), *model.buffers()):
                latest.add_(torch.randn_like(latest) if latest.is_floating_point() else 1)
        average.update_(model, step)
        for mine, latest in zip(expected.parameters(), model.parameters(), strict=True):
            mine.lerp_(latest, 1 - min(0.3, (1 + step) / (10 + step)))
        expected[1].load_state_dict(dict(model[1].state_dict(), **dict(expected[1].named_parameters())))
        assert_same(average.model, expected)
    assert not average.model.training


def test_the_average_keeps_what_never_changes_to_the_bit(model: nn.Module, train: ImageSplit) -> None:
    with torch.no_grad():
        model.get_parameter("head.bias").copy_(torch.randn(3))
    result, _ = fitted(model, train, TECHNIQUES["ema"])
    assert torch.equal(result.model.get_parameter("head.bias"), model.get_parameter("head.bias"))


def test_what_is_evaluated_is_the_average_with_statistics_of_its_own(
    model: nn.Module, train: ImageSplit, val: ImageSplit
) -> None:
    result, states = fitted(model, train, TECHNIQUES["ema"], val=val)
    assert measure(result.model, val.batches(32), CPU, Classification()).loss == result.history[-1]["val_loss"]
    assert states[-1].average is not None
    assert not torch.equal(states[-1].average["stem.weight"], states[-1].model["stem.weight"])
    measured = copy.deepcopy(result.model)
    recalibrate_(measured, train, RECALIBRATION_BATCHES, batch_size=32, augment=True)
    assert_same(result.model, measured)


def test_a_state_without_the_average_is_refused(model: nn.Module, train: ImageSplit) -> None:
    _, states = fitted(model, train, PLAIN)
    with pytest.raises(CorruptFileError, match="that of another model"):
        fitted(model, train, TECHNIQUES["ema"], state=states[0])


def test_the_loss_of_a_teacher_is_hintons() -> None:
    torch.manual_seed(0)
    images, logits, labels = torch.randn(4, 1, 6, 6), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    model = Crooked()
    settings = OptimSettings(distill_weight=0.3, distill_temperature=2.0)
    loss = F.cross_entropy(logits, labels)
    soft = F.softmax(model(images) / 2, 1)
    entropy = -(soft * soft.log()).sum(1).mean()
    expected = 0.7 * loss + 0.3 * 4 * (F.cross_entropy(logits / 2, soft) - entropy)
    actual = Teacher(model, Classification(), settings, CPU, IMAGE).blended(loss, logits, images)
    torch.testing.assert_close(actual, expected)


def test_a_teacher_of_no_weight_changes_no_bit(model: nn.Module, teacher: nn.Module, train: ImageSplit) -> None:
    plain, _ = fitted(model, train, PLAIN)
    taught, _ = fitted(model, train, replace(PLAIN, distill_weight=0.0), teacher=teacher)
    assert_same(taught.model, plain.model)


def test_a_teacher_never_learns(model: nn.Module, train: ImageSplit) -> None:
    teacher = copy.deepcopy(model).train()
    before = copy.deepcopy(teacher)
    fitted(model, train, TECHNIQUES["teacher"], teacher=teacher)
    assert_same(teacher, before)
    assert teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_labels_alone_teach_less_of_the_teacher(model: nn.Module, train: ImageSplit, val: ImageSplit) -> None:
    """A teacher that is wrong about everything shows whose word counts."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with torch.no_grad():
        teacher[1].weight.zero_()
        teacher[1].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    taught, _ = fitted(model, train, replace(PLAIN, distill_weight=1.0), teacher=teacher)
    guesses = torch.cat([taught.model(images).argmax(1) for images, _ in val.batches(40)])
    assert (guesses == 0).all()


@torch.no_grad()
def length(model: nn.Module, other: nn.Module) -> float:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return float(torch.stack([(one - two).square().sum() for one, two in pairs]).sum().sqrt())


@pytest.mark.parametrize("clip", [0.01, 0.1])
def test_a_clipped_step_is_no_longer_than_that(model: nn.Module, train: ImageSplit, clip: float) -> None:
    settings = OptimSettings(epochs=1, lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", clip=clip)
    result, _ = fitted(model, train.subset(32, seed=0), settings)
    assert length(result.model, model) == pytest.approx(clip, rel=1e-3)


def test_the_best_epoch_is_kept_and_looking_stops(model: nn.Module, train: ImageSplit, val: ImageSplit) -> None:
    settings = replace(PLAIN, epochs=60, schedule="constant", lr=0.2, patience=3)
    result, states = fitted(model, train, settings, val=val)
    losses = [record["val_loss"] for record in result.history]
    assert result.epoch == losses.index(min(losses)) + 1 == len(losses) - 3
    assert len(losses) < 60
    for name, tensor in states[result.epoch - 1].model.items():
        assert torch.equal(result.model.state_dict()[name], tensor), name
    again, later = fitted(model, train, settings, val=val, state=states[-1])  # killed before it could write its file
    assert later == []
    assert_same(again.model, result.model)


def test_what_is_better() -> None:
    model, best = nn.Linear(1, 1), None
    records = [(1, 0.5, 80.0), (2, 0.4, 70.0), (3, 0.4, 90.0), (4, 0.6, 90.0)]
    for stop_on, expected in (("loss", (2, 0.4)), ("accuracy", (3, 10.0)), ("headline", (3, 10.0))):
        best = None
        for epoch, loss, top1 in records:
            record = {"epoch": epoch, "val_loss": loss, "val_top1": top1}
            best = better_of(best, model, record, OptimSettings(patience=2, stop_on=stop_on), TOP1)  # type: ignore[arg-type]
        assert best is not None
        assert (best.epoch, best.score) == expected
    assert better_of(None, model, {"epoch": 1, "val_loss": 0.1}, OptimSettings(), TOP1) is None


@pytest.mark.parametrize(("epochs", "over"), [(3, False), (4, False), (5, True), (9, True)])
def test_when_it_is_over(epochs: int, over: bool) -> None:
    assert is_over(Best(3, 0.1, {}), epochs, 2) is over
    assert not is_over(None, epochs, 0)


def test_patience_needs_validation_images(model: nn.Module, train: ImageSplit) -> None:
    with pytest.raises(InputError, match=r"no epoch is better(.|\n)*patience"):
        fitted(model, train, replace(PLAIN, patience=1))


def test_bfloat16_is_near_and_weights_stay_float32(model: nn.Module, train: ImageSplit, val: ImageSplit) -> None:
    plain, _ = fitted(model, train, PLAIN, val=val)
    half, _ = fitted(model, train, TECHNIQUES["bfloat16"], val=val)
    assert {tensor.dtype for tensor in half.model.parameters()} == {torch.float32}
    assert half.history[0]["train_loss"] == pytest.approx(plain.history[0]["train_loss"], rel=0.02)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.compile`` without its slow part: the model is traced, and what was traced is run by PyTorch."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


@pytest.mark.usefixtures("compiler")
def test_compiled_or_not_is_the_same_training(model: nn.Module, train: ImageSplit, val: ImageSplit) -> None:
    settings = replace(PLAIN, epochs=2, ema=0.9)
    plain, _ = fitted(model, train, settings, val=val)
    fast, states = fitted(model, train, replace(settings, compile=True), val=val)
    assert list(fast.model.state_dict()) == list(states[0].model) == list(model.state_dict())
    assert type(fast.model) is type(model)
    assert fast.history[0]["train_loss"] == pytest.approx(plain.history[0]["train_loss"], rel=1e-4)
    resumed, _ = fitted(model, train, replace(settings, compile=True), val=val, state=states[0])
    assert_same(resumed.model, fast.model)


def test_where_compiling_fails_it_is_said_and_nothing_else_changes(
    model: nn.Module, train: ImageSplit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails_backward(model: nn.Module, **_: object) -> Any:
        class Fails(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
                return logits.clone()

            @staticmethod
            def backward(ctx: Any, *_: Any) -> Any:
                raise RuntimeError("no compiler\nand a long story")

        return lambda images: Fails.apply(model(images))

    plain, _ = fitted(model, train, PLAIN)
    monkeypatch.setattr(torch, "compile", fails_backward)
    with caplog.at_level(logging.WARNING):
        result, _ = fitted(model, train, replace(PLAIN, compile=True))
    assert_same(result.model, plain.model)
    assert [record.message for record in caplog.records] == [
        "Trained without --compile, which fails here: RuntimeError: no compiler"
    ]
