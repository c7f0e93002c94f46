"""The figures of every epoch to where people keep those of all their runs: by the services' own packages.

All get the same names, those of the history: ``lr``, ``train_loss``, ``val_loss`` and the task's metric on either
split, by the epoch. A run is one model's training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from metaprune_cli.config import Logger
from metaprune_cli.console.text import file_name
from metaprune_cli.errors import InputError
from metaprune_cli.training.progress import Progress

TRAINING = "train"
"""The task whose steps are epochs."""
FOLDER = "runs"
"""Of what TensorBoard and DVCLive write, below the working directory."""


@dataclass(frozen=True)
class Run:
    """One model's training in a service: takes the figures of an epoch, and is told that it is over."""

    log: Callable[[Mapping[str, float], int], None]
    close: Callable[[], None]


def _tensorboard(name: str) -> Run:
    writer = _package("tensorboard", "torch.utils.tensorboard").SummaryWriter(f"{FOLDER}/{name}")

    def log(figures: Mapping[str, float], epoch: int) -> None:
        for key, value in figures.items():
            writer.add_scalar(key, value, epoch)

    return Run(log, writer.close)


def _mlflow(name: str) -> Run:
    mlflow = _package("mlflow", "mlflow")
    mlflow.start_run(run_name=name)
    return Run(lambda figures, epoch: mlflow.log_metrics(dict(figures), step=epoch), mlflow.end_run)


def _wandb(name: str) -> Run:
    run = _package("wandb", "wandb").init(project="metaprune", name=name)
    return Run(lambda figures, epoch: run.log(dict(figures), step=epoch), run.finish)


def _dvclive(name: str) -> Run:
    live = _package("dvclive", "dvclive").Live(f"{FOLDER}/{name}")

    def log(figures: Mapping[str, float], epoch: int) -> None:
        live.step = epoch
        for key, value in figures.items():
            live.log_metric(key, value)
        live.make_summary()

    return Run(log, live.end)


BY_NAME: Mapping[Logger, Callable[[str], Run]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "dvclive": _dvclive,
}


@dataclass
class Logging:
    """A listener that passes everything on, and the figures of every epoch to a service too."""

    listener: Progress
    begin_run: Callable[[str], Run]
    _tasks: list[tuple[Run | None, list[int]]] = field(default_factory=list)

    def begin(self, label: str, total: int) -> None:
        """A task starts; with the training of a model, a run."""
        word, _, name = label.partition(" ")
        run = self.begin_run(file_name(Path(name).stem or "model")) if word == TRAINING else None
        self._tasks.append((run, [0]))
        self.listener.begin(label, total)

    def step(self, **figures: float) -> None:
        """Of a training, an epoch."""
        run, done = self._tasks[-1]
        done[0] += 1
        if run is not None and figures:
            run.log(figures, done[0])
        self.listener.step(**figures)

    def end(self) -> None:
        """The innermost task is over."""
        self.listener.end()
        run, _ = self._tasks.pop()
        if run is not None:
            run.close()

    def close(self) -> None:
        """Close what was interrupted."""
        for run, _ in reversed(self._tasks):
            if run is not None:
                run.close()
        self._tasks.clear()


@contextmanager
def logged(progress: Progress, service: Logger | None, *, jobs: int = 1) -> Iterator[Progress]:
    """The listener, with figures going to a service for the time of the ``with`` block.

    Args:
        progress: is told everything.
        service: None: none.
        jobs: models at a time; what happens in processes of their own is not heard here.

    Raises:
        InputError: the service's package is missing, or there are several jobs.
    """
    if service is None:
        yield progress
        return
    if jobs != 1:
        raise InputError(
            "Figures are sent from one process.", expected="1", got=jobs, where="--jobs", next_step="leave --jobs out"
        )
    _package(service, "torch.utils.tensorboard" if service == "tensorboard" else service)
    logging = Logging(progress, BY_NAME[service])
    try:
        yield logging
    finally:
        logging.close()


def _package(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"The package {name} is not installed.",
            got=str(error),
            where="--log",
            next_step=f"pip install 'metaprune[{name}]', or pip install {name}",
        ) from error
