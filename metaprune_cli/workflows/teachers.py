"""Whose outputs each model learns from: one teacher's, or those of its own base in a folder of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metaprune_cli.artifacts import is_artifact
from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.tasks import Task
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.lineage import own_base
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.paths import find_sources


def open_fitting(path: Path, source: ModelSource, splits: Splits, task: Task) -> Opened:
    """A model that takes the inputs and returns what the task asks for.

    Raises:
        InputError: it does not, naming what differs.
    """
    opened = open_model(path, source).of_shape(splits.item_shape)
    check_fits(opened, splits, task)
    return opened


def open_teacher(path: Path, source: ModelSource, splits: Splits, task: Task) -> Opened:
    """The same for a teacher; ``source`` is about the models that learn, and what the file itself says goes first."""
    if is_artifact(path):
        source = replace(source, arch=None, arch_args={}, input_shape=None)
    return open_fitting(path, source, splits, task)


def teachers_for(
    models: Sequence[Path], teacher: Path | None, source: ModelSource, splits: Splits, task: Task
) -> Sequence[Path | None]:
    """For each model its teacher's file: decided, and checked, before any training.

    Args:
        models: files.
        teacher: a file, the teacher of all; or a folder: each model has the one it was made from, by its lineage or by
            the beginning of its name.
        source: how foreign files of ``models`` are opened.
        splits: the data that all of them take.
        task: what all of them are for.

    Raises:
        InputError: a teacher cannot be used, or models have none in the folder; names all of those.
    """
    if teacher is None:
        return [None] * len(models)
    candidates = [open_teacher(file.path, source, splits, task) for file in find_sources([teacher], ("model",)).files]
    if not teacher.is_dir():
        return [teacher] * len(models)
    found = [own_base(open_model(path, source), candidates) for path in models]
    orphans = [str(path) for path, base in zip(models, found, strict=True) if base is None]
    if orphans:
        raise InputError(
            "Some models have no teacher in the folder.",
            expected="the model that each was made from, by its lineage or the beginning of its name",
            got="\n".join(orphans),
            where=teacher,
            next_step="add them, or give one teacher for all: --teacher FILE",
        )
    return [base.path for base in found if base is not None]
