"""What models are trained, judged and measured on, whether a data set is named or people bring their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from metaprune_cli.config import DataSettings
from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.tasks import Task
from metaprune_cli.workflows.task import task_of


@dataclass(frozen=True, eq=False)
class Samples:
    """Training and validation samples, read when they are asked for.

    Attributes:
        task: what the models are for.
        read: the samples; None: there are none.
        batch_size: of the passes over them.
        settings: the data set they are of, if it is a named one.
    """

    task: Task
    read: Callable[[], Splits] | None = None
    batch_size: int = DataSettings.batch_size
    settings: DataSettings | None = None

    @classmethod
    def of(cls, settings: DataSettings) -> Samples:
        """Those of a named data set."""
        task = task_of(settings)
        return cls(task, lambda: task.splits(settings), settings.batch_size, settings)

    @cached_property
    def splits(self) -> Splits:
        """The samples.

        Raises:
            InputError: there are none, or they cannot be read.
        """
        if self.read is None:
            raise without_images("This")
        return self.read()


def without_images(wanted_for: str) -> InputError:
    """What is said where there are none."""
    return InputError(f"{wanted_for} needs images.", next_step="give --dataset and --data-root (in Python: data=…)")
