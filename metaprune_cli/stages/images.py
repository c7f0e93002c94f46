"""Whether a model fits the images it is to work on."""

from __future__ import annotations

import torch
from torch import Tensor

from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.metrics.calling import logits_of
from metaprune_cli.stages.loading import Opened


def check_fits(opened: Opened, splits: Splits) -> None:
    """Make sure that a model takes the images and gives one score for each of their classes.

    Raises:
        InputError: it does not, naming what differs.
    """
    expected, shape, dataset = opened.architecture.input_shape, splits.input_shape[1:], splits.name
    if expected is not None and tuple(expected) != shape:
        raise InputError(
            f"The model and the images of {dataset} have different shapes.",
            expected=f"images of {_written(expected)}",
            got=_written(shape),
            where=opened.path,
            next_step="choose the model's data set with --dataset, set data.image_size, or say --input-shape",
        )
    scores = _scores(opened, shape, dataset)
    if scores.ndim != 2 or scores.shape[1] != splits.num_classes:
        raise InputError(
            f"The model and the data set {dataset} have different numbers of classes.",
            expected=f"{splits.num_classes} classes",
            got=f"an output of {_written(tuple(scores.shape[1:]))}",
            where=opened.path,
            next_step="choose the data set the model was made for with --dataset",
        )


@torch.no_grad()
def _scores(opened: Opened, shape: tuple[int, ...], dataset: str) -> Tensor:
    try:
        return logits_of(opened.model(torch.zeros(1, *shape)))
    except Exception as error:  # the model is anyone's: a ViT fails by an assertion
        raise InputError(
            f"The model cannot take images of {dataset}.",
            got=f"images of {_written(shape)}: {error}",
            where=opened.path,
            next_step="choose the data set the model was made for with --dataset, or set data.image_size",
        ) from error


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
