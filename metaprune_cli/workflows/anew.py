"""A model built anew from its architecture, its weights as before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import NOTHING_SAID, Preprocessing
from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.models import Architecture, build, list_architectures
from metaprune_cli.models.recognise import shapes_of
from metaprune_cli.models.registry import takes_argument
from metaprune_cli.tasks import Task
from metaprune_cli.training.seeds import seed_everything
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.loading import Opened, Shape


def architecture_of(
    name: str, said: Mapping[str, Any], splits: Splits, task: Task, input_shape: Shape | None = None
) -> Architecture:
    """The architecture for these data: what is ``said`` goes first, and a factory is told nothing else.

    Args:
        name: of the architecture.
        said: its arguments, as far as the user gives them.
        splits: the data, which say the rest (classes, channels, size).
        task: what the model is for.
        input_shape: without the batch; None: that of the data.
    """
    facts = task.arguments(splits).items() if name in list_architectures() else ()
    args = {key: value for key, value in facts if takes_argument(name, key)}
    return Architecture(name, args | dict(said), splits.item_shape if input_shape is None else input_shape)


def built(architecture: Architecture, seed: int) -> nn.Module:
    """The architecture with weights as ``seed`` has them, in eval mode on the CPU."""
    with torch.random.fork_rng(devices=[]):
        seed_everything(seed)
        return build(architecture).eval()


def new_model(
    architecture: Architecture,
    seed: int,
    splits: Splits,
    task: Task,
    path: Path,
    preprocessing: Preprocessing = NOTHING_SAID,
) -> Opened:
    """A model that comes from no file; ``path`` is where it would be.

    Raises:
        InputError: it does not fit the data.
    """
    opened = Opened(built(architecture, seed), architecture, (), path, preprocessing=preprocessing)
    check_fits(opened, splits, task)
    return opened


def with_new_weights(opened: Opened, seed: int) -> Opened:
    """The same model as before any training; what is known of its weights alone is left out.

    Raises:
        InputError: its architecture does not say how to build it: it is a program, or was pruned.
    """
    if isinstance(opened.model, Program):
        raise InputError(
            "The model cannot begin with new weights: a program has those alone that it came with.",
            where=opened.path,
            next_step="begin with its own weights, or with the model that it was pruned from",
        )
    fresh = built(opened.architecture, seed)
    if shapes_of(fresh.state_dict()) != shapes_of(opened.model.state_dict()):
        raise InputError(
            "The model cannot begin with new weights: it does not have the widths of its architecture.",
            where=opened.path,
            next_step="begin with its own weights, or with a model that was not pruned",
        )
    return replace(opened, model=fresh, graph=None, importance=None, zeros=None)
