"""A classifier that does no better than guessing: most often its images are not normalised as in its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from metaprune_cli.config import DataSettings, Preprocessing
from metaprune_cli.data import Splits
from metaprune_cli.tasks import Task
from metaprune_cli.tasks.base import image_arguments
from metaprune_cli.tasks.measuring import measure

MUCH = 10.0
"""Points above guessing from which on a model is not doubted, or twice as good as guessing where that is less."""
IMAGES = 256
"""Validation images on which other normalisations are tried."""
USUAL = (
    Preprocessing((0.0,), (1.0,)),
    Preprocessing((0.5,), (0.5,)),
    Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
"""How images are usually normalised."""


def as_options(said: Preprocessing) -> str:
    """A normalisation as the command line's options."""
    return " ".join(f"--{name} {','.join(f'{x:g}' for x in getattr(said, name))}" for name in ("mean", "std"))


def as_python(said: Preprocessing) -> str:
    """A normalisation as an argument of ``DataSettings``."""
    return f"preprocessing=mp.Preprocessing(mean={said.mean}, std={said.std})"


def doubt(
    model: nn.Module,
    data: DataSettings,
    splits: Splits,
    task: Task,
    headline: float,
    device: torch.device,
    spelt: Callable[[Preprocessing], str] = as_options,
) -> str | None:
    """What to say of a model whose accuracy on its images is that of guessing; None of any other.

    Args:
        model: it, as it was given.
        data: its images.
        splits: the same, read.
        task: what it is for.
        headline: the task's first metric on the validation images.
        device: where it runs.
        spelt: how a normalisation is written where the model is from: as options, or in Python.
    """
    guessing, channels = task.guessing(splits), image_arguments(splits).get("in_channels")
    if guessing is None or channels is None:
        return None
    enough = min(2 * guessing, guessing + MUCH)
    if headline >= enough:
        return None
    fitting = [said for said in USUAL if len(said.mean) in (1, channels)]
    found = {spelt(said): _accuracy(model, data, task, said, device) for said in fitting}
    words, best = max(found.items(), key=lambda item: item[1])
    said = (
        f"Before pruning, the model classifies only {headline:.1f} % of the validation images correctly; guessing "
        f"would give {guessing:.1f} %. "
    )
    if best >= max(enough, 2 * headline):
        return said + f"With {words} it is {best:.1f} %: add that if it is how the model was trained."
    settings = "--mean, --std, --image-size, --channels" if spelt is as_options else "DataSettings.preprocessing"
    return said + (
        f"Check that images are prepared as in training ({settings}), that the folders of "
        "the classes, in alphabetical order, are in the model's order, and that the weights are the trained ones."
    )


def _accuracy(model: nn.Module, data: DataSettings, task: Task, said: Preprocessing, device: torch.device) -> float:
    val = task.splits(replace(data, preprocessing=said.over(data.preprocessing))).val
    some = val.subset(min(IMAGES, len(val)), seed=0)
    return measure(model.to(device), some.batches(data.batch_size, device=device), device, task).headline
