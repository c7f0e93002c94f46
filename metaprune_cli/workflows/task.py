"""Which task the models of one call are for: what the user says, or what their files do."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaprune_cli.artifacts import is_artifact, read_document
from metaprune_cli.config import NOTHING_SAID, DataSettings, Preprocessing, RestorationSettings
from metaprune_cli.config.restoration import REMEMBERED
from metaprune_cli.errors import InputError
from metaprune_cli.methods.registry import method_of_step
from metaprune_cli.models.consent import was_named
from metaprune_cli.tasks import DEFAULT, Task, find_task
from metaprune_cli.tasks.registry import is_own
from metaprune_cli.workflows.preprocessing import with_preprocessing

TRAINING = ("zoo", "finetune")
RESTORED = "restoration"
"""Of the document of a model or a graph; absent from all but those that restore images."""


def task_of(data: DataSettings) -> Task:
    """The task that the settings name, as they want it."""
    return _found(data.task or data.usual_task).configured(data)


def task_in(document: Mapping[str, Any]) -> str | None:
    """The task that a document names; None where its model was never trained here, and may be for any.

    Classification is not written down: files were made for it before there were others.
    """
    lineage = document.get("lineage", ())
    trained = any((step["command"] in TRAINING or method_of_step(step)) and "seed" in step for step in lineage)
    named: str | None = document.get("task", DEFAULT if trained else None)
    return named


def with_task(
    data: DataSettings,
    files: Iterable[Path],
    *,
    allow_import: bool,
    preprocessing: Preprocessing = NOTHING_SAID,
    alike: bool = True,
) -> DataSettings:
    """The settings with the task and the preprocessing that they, or else the models' files, name.

    The task is None for classification.

    Args:
        data: the settings.
        files: of models or graphs.
        allow_import: whether a task of a user's that only a file names may be imported.
        preprocessing: what the user says of it; it goes before what files say.
        alike: whether all models have to take the same images; if not, none of what files say of it is taken.

    Raises:
        InputError: models are for different tasks or images, or for another task than the settings say; or it may not
            be imported.
    """
    files = list(files)
    if alike:
        data = with_preprocessing(data, files, preprocessing)
    named = {path: task for path in files if is_artifact(path) and (task := task_in(read_document(path))) is not None}
    wanted = data.task or next(iter(named.values()), data.usual_task or DEFAULT)
    others = {path: task for path, task in named.items() if task != wanted}
    if others:
        raise InputError(
            "Some models were made for another task.",
            expected=wanted,
            got="\n".join(f"{path}: {task}" for path, task in others.items()),
            where="--task" if data.task else None,
            next_step=f"--task {next(iter(others.values()))}, or leave these models out",
            about="data",
        )
    asked = wanted in (data.task, data.usual_task) or allow_import
    if is_own(wanted) and not asked and not was_named(wanted, next(iter(named))):
        raise InputError(
            "The file names a task that would have to be imported, and importing runs its code.",
            got=wanted,
            where=next(iter(named)),
            next_step=f"if you trust the file and the module, add --allow-import, or name the task: --task {wanted}",
        )
    return replace(
        data, task=None if wanted == DEFAULT else wanted, usual_task=None, restoration=restoration_of(data, files)
    )


def restoration_of(data: DataSettings, files: Iterable[Path]) -> RestorationSettings:
    """What is restored, as the settings say, or else the models' files do.

    Raises:
        InputError: the files differ in something that the settings do not say.
    """
    said = {path: read_document(path).get(RESTORED) or {} for path in files if is_artifact(path)}
    for name in REMEMBERED:
        values = {str(path): document[name] for path, document in said.items() if name in document}
        if len(set(values.values())) > 1 and getattr(data.restoration, name) is None:
            raise InputError(
                f"The models are made for images of different {name}.",
                expected=f"one {name}",
                got="\n".join(f"{path}: {value}" for path, value in values.items()),
                next_step=f"say which one they are to be used with: --{name}",
            )
    found = data.restoration
    for document in said.values():
        found = found.after(document)
    return found


@functools.cache
def _found(name: str | None) -> Task:
    return find_task(name)
