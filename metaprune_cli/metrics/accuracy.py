"""How often a model is right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.metrics.calling import evaluating, in_fast_format, logits_of


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 accuracy in percent, mean cross-entropy in nats, and over how many images."""

    top1: float
    top5: float
    loss: float
    samples: int


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str) -> Accuracy:
    """Accuracy of ``model``, which lives on ``device``, in eval mode; its modes are put back.

    Args:
        batches: images (n, ...) and labels (n,).

    Raises:
        InputError: there are no images, or the model has fewer classes than the labels.
        NumericsError: the loss is not finite.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    samples = 0
    with evaluating(model):
        for images, labels in in_fast_format(model, batches):
            sums += _sums(logits_of(model(images.to(device))).float(), labels.to(device))
            samples += len(labels)
    if not samples:
        raise InputError("There are no images to evaluate on.")
    top1, top5, loss = (sums / samples).tolist()
    if not math.isfinite(loss):
        raise NumericsError(
            "The model's outputs are not finite.", got=f"loss {loss}", next_step="inspect its parameters"
        )
    return Accuracy(100 * top1, 100 * top5, loss, samples)


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Top-1 hits, top-5 hits and summed cross-entropy of one batch, float64 (3,) on the CPU."""
    classes = logits.shape[-1]
    if logits.ndim != 2 or int(labels.max()) >= classes:
        raise InputError(
            "The model's outputs do not fit the labels.",
            expected=f"scores ({len(labels)}, classes) with more than {int(labels.max())} classes",
            got=f"scores {tuple(logits.shape)}",
            next_step="check --dataset and the model's number of classes",
        )
    hits = logits.topk(min(5, classes)).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([hits[:, 0].sum(), hits.sum(), loss]).double().cpu()
