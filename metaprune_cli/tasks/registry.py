"""Tasks by name: those that are built in, and users' own as ``package.module:task``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from metaprune_cli.config_loader import did_you_mean, module_named
from metaprune_cli.errors import InputError
from metaprune_cli.models.importing import import_object
from metaprune_cli.tasks.base import Task
from metaprune_cli.tasks.classification import Classification
from metaprune_cli.tasks.restoration import Denoising, SuperResolution

DEFAULT = "classification"


@dataclass(frozen=True)
class Known:
    """A task of ours: how it is made, and what it is in a line."""

    make: Callable[[], Task]
    about: str


TASKS: Mapping[str, Known] = MappingProxyType(
    {
        DEFAULT: Known(Classification, "which of several classes an input is of"),
        "super-resolution": Known(SuperResolution, "images made larger (--scale), as sharp as they may have been"),
        "denoising": Known(Denoising, "images without their Gaussian noise (--sigma)"),
    }
)
MEMBERS = ("name", "metrics", "splits", "test", "loss", "meter")
"""What a task of a user's must have; the rest is as in ``Task`` where it derives from that."""


def find_task(task: str | object | None) -> Task:
    """The task that is meant; None is classification.

    Args:
        task: the name of a built-in one, or ``package.module:task``; or the object itself; an object may also be a
            class or function that makes one without arguments.

    Raises:
        InputError: there is none, it cannot be imported, or it is no task; names what it lacks.
    """
    if task is not None and not isinstance(task, str):
        return _checked(task, getattr(task, "__name__", type(task).__name__))
    name = module_named(task or DEFAULT)
    if name in TASKS:
        return TASKS[name].make()
    if ":" not in name:
        raise InputError(
            f"There is no task {name!r}{did_you_mean(name, TASKS)}.",
            expected=f"{', '.join(TASKS)}, or package.module:task",
            where="--task",
        )
    return _checked(import_object(name, "task", where="--task"), name)


def is_own(name: str) -> bool:
    """Whether a name stands for code of somebody else's, which has to be imported."""
    return ":" in name


def _checked(found: Any, name: str) -> Task:
    if isinstance(found, type) or (callable(found) and not hasattr(found, "metrics")):
        try:
            found = found()
        except Exception as error:
            raise InputError(
                "The task could not be made.", got=f"{type(error).__name__}: {error}", where=name
            ) from error
    every = [member for member in dir(Task) if not member.startswith("_")]
    missing = [member for member in dict.fromkeys((*MEMBERS, *every)) if not hasattr(found, member)]
    unwritten = [member for member in MEMBERS if getattr(type(found), member, None) is getattr(Task, member, found)]
    if missing or unwritten or not found.metrics:
        raise InputError(
            "This is not a task: something is missing.",
            expected="an object with " + ", ".join(MEMBERS) + "; deriving from metaprune_cli.tasks.Task gives the rest",
            got="without " + ", ".join(dict.fromkeys([*missing, *unwritten] or ["any metric"])),
            where=name,
            next_step="see the tutorial on tasks of your own",
        )
    task: Task = found
    return task
