"""Which of several classes an input is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.config import DataSettings
from metaprune_cli.data.batch import Split
from metaprune_cli.data.splits import Splits, load_splits, load_test
from metaprune_cli.errors import InputError
from metaprune_cli.metrics.calling import logits_of
from metaprune_cli.tasks.base import Metric, SumMeter, Task, image_arguments

TOP1 = Metric("top1", "Top-1", "%", quantity="Accuracy")
TOP5 = Metric("top5", "Top-5", "%", quantity="Accuracy")


@dataclass(frozen=True)
class Classification(Task):
    """Class scores (n, classes) for class numbers int64 (n,); ``smoothing`` of the labels, in training alone."""

    name: ClassVar[str] = "classification"  # type: ignore[misc]
    metrics: ClassVar[tuple[Metric, ...]] = (TOP1, TOP5)  # type: ignore[misc]
    mixable: ClassVar[bool] = True  # type: ignore[misc]
    learns_from_whole: ClassVar[bool] = True  # type: ignore[misc]
    smoothing: float = 0.0

    def splits(self, data: DataSettings) -> Splits:
        """Training and validation images with their classes."""
        return load_splits(data)

    def test(self, data: DataSettings) -> Mapping[str, Split]:
        """One set of test images."""
        return {data.dataset: load_test(data)}

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Mean cross-entropy, in nats."""
        return F.cross_entropy(_scores(output), targets, label_smoothing=self.smoothing)

    def total_loss(self, output: Any, targets: Tensor) -> Tensor:
        """Summed cross-entropy."""
        return F.cross_entropy(_scores(output), targets, reduction="sum")

    def meter(self) -> SumMeter:
        """Top-1 and top-5 accuracy, in percent."""
        return SumMeter(_hits, _accuracies, 3)

    def quick_meter(self) -> SumMeter:
        """Top-1 accuracy, in percent."""
        return SumMeter(_first_hits, _accuracy, 2)

    def match(self, output: Any, taught: Any, temperature: float = 1.0) -> Tensor:
        """T² · KL(softmax(taught / T) ‖ softmax(output / T)): Hinton et al., arXiv 1503.02531, section 2.

        T² keeps the gradients at the size of the loss's.
        """
        own, other = (F.log_softmax(_scores(scores) / temperature, 1) for scores in (output, taught))
        return temperature**2 * F.kl_div(own, other, log_target=True, reduction="batchmean")

    def guessing(self, splits: Splits) -> float | None:
        """The accuracy of guessing, in percent."""
        return 100 / splits.num_classes if splits.num_classes else None

    def smoothed(self, amount: float) -> Classification:
        """The same with so much of every label spread over all classes."""
        return replace(self, smoothing=amount)

    def check(self, output: Any, splits: Splits) -> None:
        """Make sure that there is a score for each class."""
        scores = logits_of(output)
        if scores.ndim != 2 or scores.shape[1] != splits.num_classes:
            raise InputError(
                f"The model and the data set {splits.name} have different numbers of classes.",
                expected=f"{splits.num_classes} classes",
                got=f"an output of {'x'.join(map(str, scores.shape[1:]))}",
                next_step="choose the data set the model was made for with --dataset",
            )

    def arguments(self, splits: Splits) -> Mapping[str, Any]:
        """The number of classes, and what the images say."""
        return {"num_classes": splits.num_classes} | image_arguments(splits)


def _scores(output: Any) -> Tensor:
    return logits_of(output).float()


def _hits(output: Any, labels: Tensor) -> Tensor:
    """How many are right at once, how many within five, and how many there are."""
    scores = _scores(output)
    classes = scores.shape[-1]
    if scores.ndim != 2 or int(labels.max()) >= classes:
        raise InputError(
            "The model's outputs do not fit the labels.",
            expected=f"scores ({len(labels)}, classes) with more than {int(labels.max())} classes",
            got=f"scores {tuple(scores.shape)}",
            next_step="check --dataset and the model's number of classes",
        )
    hits = scores.topk(min(5, classes)).indices == labels[:, None]
    return torch.stack([hits[:, 0].sum(), hits.sum(), torch.tensor(len(labels), device=hits.device)])


def _accuracies(sums: Tensor) -> dict[str, float]:
    first, within_five = (sums[:2] / sums[2]).tolist()
    return {TOP1.key: 100 * first, TOP5.key: 100 * within_five}


def _first_hits(output: Any, labels: Tensor) -> Tensor:
    hits = (logits_of(output).argmax(1) == labels).sum()
    return torch.stack([hits, torch.tensor(len(labels), device=hits.device)])


def _accuracy(sums: Tensor) -> dict[str, float]:
    right, seen = sums.tolist()
    return {TOP1.key: 100 * right / round(seen)}
