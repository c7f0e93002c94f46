"""Sending every epoch's figures to an experiment tracker, through the tracker's own package.

All trackers get the same names, those of the training history: ``lr``, ``train_loss``, ``val_loss`` and the task's
metric on either split. One model's training is one run.
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

TRAININGS = ("train", "meta-train")
"""The tasks whose steps are epochs; what follows in their labels is the model's file."""
FOLDER = "runs"
"""Where TensorBoard and DVCLive write, below the working directory."""


@dataclass(frozen=True)
class Run:
    """One model's training in a tracker: takes the figures of an epoch, and is closed at the end."""

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
    """A listener that passes everything on, and sends the figures of every epoch to a tracker."""

    listener: Progress
    begin_run: Callable[[str], Run]
    _runs: list[Run | None] = field(default_factory=list)  # one for each open task

    def begin(self, label: str, total: int) -> None:
        """A task starts; if it is a training, so does a run."""
        word, _, name = label.partition(" ")
        self._runs.append(self.begin_run(file_name(Path(name).stem or "model")) if word in TRAININGS else None)
        self.listener.begin(label, total)

    def step(self, **figures: float) -> None:
        """One step is done; in a training, that is an epoch, which the figures number."""
        run = self._runs[-1]
        if run is not None and "epoch" in figures:
            run.log({name: value for name, value in figures.items() if name != "epoch"}, int(figures["epoch"]))
        self.listener.step(**figures)

    def end(self) -> None:
        """The innermost task is over."""
        self.listener.end()
        _close(self._runs.pop())

    def close(self) -> None:
        """Close what was interrupted."""
        while self._runs:
            _close(self._runs.pop())


def _close(run: Run | None) -> None:
    if run is not None:
        run.close()


@contextmanager
def logged(progress: Progress, service: Logger | None, *, jobs: int = 1) -> Iterator[Progress]:
    """The listener, which also sends figures to a tracker inside the ``with`` block.

    Args:
        progress: is told everything.
        service: the tracker; None: none.
        jobs: how many models are trained at a time; the progress of worker processes does not reach this one.

    Raises:
        InputError: the tracker's package is missing, or there are several jobs.
    """
    if service is None:
        yield progress
        return
    if jobs != 1:
        raise InputError(
            "--log works with one job at a time.", expected="1", got=jobs, where="--jobs", next_step="leave --jobs out"
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
