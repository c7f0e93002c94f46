from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.tasks import Classification, measure


def batches_of(logits, labels, size=3):
    return list(zip(logits.split(size), labels.split(size), strict=True))


def test_accuracy_is_what_the_whole_set_gives():
    logits, labels = torch.randn(20, 10), torch.randint(0, 10, (20,))
    found = measure(nn.Identity(), batches_of(logits, labels), "cpu", Classification())
    assert found.samples == 20
    assert found.values["top1"] == pytest.approx(100 * float((logits.argmax(1) == labels).double().mean()))
    in_five = (logits.argsort(1, descending=True)[:, :5] == labels[:, None]).any(1)
    assert found.values["top5"] == pytest.approx(100 * float(in_five.double().mean()))
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)


def test_with_few_classes_top5_is_all():
    assert (
        measure(nn.Identity(), [(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))], "cpu", Classification()).values[
            "top5"
        ]
        == 100
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, None),
        lambda logits: {"loss": None, "logits": logits},
        lambda logits: {"scores": logits},
        lambda logits: SimpleNamespace(logits=logits),
    ],
    ids=["tuple", "logits-entry", "first-entry", "attribute"],
)
def test_scores_are_found_in_any_output(wrap):
    class Wrapped(nn.Module):
        def forward(self, logits):
            return wrap(logits)

    assert measure(Wrapped(), [(torch.eye(4), torch.arange(4))], "cpu", Classification()).values["top1"] == 100


def test_dropout_is_off_and_modes_are_put_back():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(4).eval())
    measure(model, [(torch.eye(4), torch.arange(4))], "cpu", Classification())
    assert [module.training for module in model.modules()] == [True, True, False]


def test_too_few_classes_are_refused():
    with pytest.raises(InputError, match="do not fit the labels") as caught:
        measure(nn.Identity(), [(torch.eye(4), torch.tensor([0, 1, 2, 7]))], "cpu", Classification())
    assert "more than 7 classes" in str(caught.value)


def test_no_images_are_refused():
    with pytest.raises(InputError, match="no images"):
        measure(nn.Identity(), [], "cpu", Classification())


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(NumericsError, match="not finite"):
        measure(nn.Identity(), [(torch.full((2, 4), torch.nan), torch.tensor([0, 1]))], "cpu", Classification())


class Flattens(nn.Module):
    """What people write: a ``view`` that takes the layout for granted, or not."""

    def __init__(self, *, by_view: bool) -> None:
        super().__init__()
        self.conv, self.linear, self.by_view = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5), by_view
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        x = self.conv(x)
        return self.linear(x.view(len(x), -1) if self.by_view else x.flatten(1))


@pytest.mark.parametrize("by_view", [True, False])
def test_images_are_channels_last_only_where_the_model_runs_on_that(by_view: bool) -> None:
    model = Flattens(by_view=by_view)
    batches = [(torch.randn(6, 3, 8, 8), torch.arange(6) % 5) for _ in range(2)]
    found = measure(model, batches, "cpu", Classification())
    assert model.seen[1:] == [not by_view] * 2
    expected = torch.stack([F.cross_entropy(model(images), labels) for images, labels in batches]).mean()
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-5)
