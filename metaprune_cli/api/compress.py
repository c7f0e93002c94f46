"""A model and images in, a smaller model and a verdict out, in one call."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.api.evaluate import evaluate
from metaprune_cli.api.export import check_writable
from metaprune_cli.api.export import export as exported
from metaprune_cli.api.finetune import finetune
from metaprune_cli.api.given import Data, device_for, held, one_sample, samples_of, task_for
from metaprune_cli.api.prune import goal_of, run_of
from metaprune_cli.config import CompressSettings, DataSettings, OptimSettings, Repair
from metaprune_cli.config.compressing import REPAIR, repair_images
from metaprune_cli.config_loader import revised
from metaprune_cli.data.splits import DATASETS
from metaprune_cli.errors import InputError
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.methods.metanet import MetaNetwork
from metaprune_cli.metrics.calling import device_of, takes_model
from metaprune_cli.metrics.latency import gain, times_interleaved
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.pruning.targets import Target
from metaprune_cli.tasks import Task
from metaprune_cli.training.loop import FitResult
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.doubts import as_python, doubt
from metaprune_cli.workflows.export.writing import Exported
from metaprune_cli.workflows.inputs import random_inputs
from metaprune_cli.workflows.max_drop import too_costly, tried
from metaprune_cli.workflows.planning import prune_to
from metaprune_cli.workflows.pruning import Pruned
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.sensitivities import worth_measuring
from metaprune_cli.workflows.verdict import Verdict

RANKED = frozenset({"scope", "criterion", "importance", "rescore", "search"})
"""Arguments by which somebody says how units are to be ranked."""

log = logging.getLogger(__name__)

RUNS = 20


@dataclass(frozen=True, eq=False)
class Compressed:
    """A smaller model, and what came of it.

    Attributes:
        model: the smaller model: trained, or as it was before where the training made it worse.
        verdict: in figures; ``str()`` of it is the sentence.
        pruned: the removal, with its plan and report.
        trained: the training, if there was any.
        exported: the file that was written, if one was.
    """

    model: nn.Module
    verdict: Verdict
    pruned: Pruned
    trained: FitResult | None = None
    exported: Exported | None = None

    def __repr__(self) -> str:
        return f"Compressed: {self.verdict.in_words()}"


@takes_model
def compress(
    model: nn.Module,
    data: Data | None = None,
    *,
    speedup: float = 2.0,
    max_drop: float | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    settings: OptimSettings | None = None,
    repair: Repair | None = None,
    metanetwork: MetaNetwork | str | Path | None = None,
    teacher: bool | None = CompressSettings.teacher,
    test: Data | None = None,
    task: Task | str | None = None,
    example_inputs: ExampleInputs | None = None,
    export: str | os.PathLike[str] | None = None,
    latency_batch: int = CompressSettings.batch,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    **pruning: Any,
) -> Compressed:
    """Remove, repair, train, measure and export as ``metaprune compress`` does.

    Args:
        model: the network; not changed.
        data: images to repair with, to train on, and to judge by; None: removal alone.
        speedup: MACs before / MACs after.
        max_drop: by how much the task's first metric may be worse on the validation samples; where ``speedup`` costs
            more, smaller ones are tried.
        epochs: of training; 0: none; None: as in ``settings``.
        lr: its learning rate; None: as in ``settings``, and if they say none either, what suits a pruned model.
        settings: everything else about the training: optimiser, schedule, mixtures, averages, patience.
        repair: what is done about the loss without training; None: ``least-squares`` where there are images.
        metanetwork: what the model passes through first (see ``prune``).
        teacher: whether the training learns from the whole model's outputs too; None: for classifiers that do better
            than guessing.
        test: what the verdict is measured on; None: the test images of ``DataSettings``, else the validation samples.
        task: what the model is for; None: as the data say, or classification.
        example_inputs: with a batch of one; needed where there are no data.
        export: a file to write the smaller model to, its format by its ending.
        latency_batch: items in a timed pass.
        seed: of everything random.
        device: where it trains; None: where the model is.
        progress: is told about every step.
        **pruning: whatever else ``prune`` takes.

    Raises:
        TargetError: the speed-up is out of reach, or all cost more than ``max_drop``.
        InputError: something cannot be used, or there are neither data nor an example.
    """
    start = time.monotonic()
    training = revised(OptimSettings, settings, {"epochs": epochs, "lr": lr}, section="finetune", where="mp.compress")
    target = pruning.pop("target", None)
    _check(speedup, target, max_drop, latency_batch, export)
    place = device_for(device, model)
    data = None if data is None else held(data)
    tested_on = _tested_on(data, None if test is None else held(test))
    samples = None if data is None else samples_of(data, task)
    example = _example(model, samples, example_inputs)
    said: dict[str, Any] = {"data": data, "task": task, "seed": seed}
    given = {"repair_images": repair_images(data), "repair": repair or ("none" if data is None else REPAIR)} | said
    if data is not None and metanetwork is None and given["repair"] == REPAIR and not RANKED & pruning.keys():
        images = int((given | pruning)["repair_images"])
        known = task_for(task, data)
        if known.criterion is None and worth_measuring(model, example, count_macs(model, example), images, known):
            given["scope"] = "sensitivity"
    run = run_of(model, example, metanetwork=metanetwork, **(given | pruning))

    def remove(speedup: float) -> Pruned:
        return prune_to(run, goal_of(speedup, target), progress)

    whole = None if samples is None else _judged(model, samples)
    doubted = None
    if isinstance(data, DataSettings) and samples is not None and whole is not None:
        doubted = doubt(model, data, samples.splits, samples.task, whole, device_of(model), as_python)
    if doubted is not None:
        log.warning(doubted)
    train = None
    if samples is not None and (training.epochs or training.recalibrate):
        taught = samples.task.learns_from_whole and doubted is None if teacher is None else teacher
        train = partial(
            finetune,
            settings=training,
            teacher=model if taught else None,
            device=place,
            progress=progress,
            **said,
        )
    if max_drop is None:
        made = _made(remove(speedup), train, samples)
    else:
        made = _within(max_drop, speedup, whole, remove, train, samples, type(model).__name__)
    before, after = _before_and_after(model, made.model, whole, tested_on, samples, task_for(task, data))
    verdict = Verdict(
        speedup=made.pruned.plan.speedup,
        faster=_faster(model, made.model, example, latency_batch, place),
        batch=latency_batch,
        metric=None if before is None else task_for(task, data).metrics[0],
        before=before,
        after=after,
        seconds=time.monotonic() - start,
    )
    file = None if export is None else exported(made.model, export, example_inputs=example)
    return Compressed(made.model, verdict, made.pruned, made.trained, file)


def _check(
    speedup: float,
    target: str | Target | None,
    max_drop: float | None,
    latency_batch: int,
    export: str | os.PathLike[str] | None,
) -> None:
    """Make sure, before any work is done, of what is only used at its end."""
    goal_of(speedup, target)
    measuring = {"max_drop": max_drop, "batch": latency_batch}
    revised(CompressSettings, None, measuring, section="compress", where="mp.compress")
    if export is not None:
        check_writable(Path(export))


@dataclass(frozen=True, eq=False)
class _Made:
    """A smaller model: what is left, its training if there was any, and the better of the two."""

    pruned: Pruned
    trained: FitResult | None
    model: nn.Module


def _made(small: Pruned, train: Callable[[Pruned], FitResult] | None, samples: Samples | None) -> _Made:
    """What is left, trained; the model is the trained one, unless the validation samples say that it was better before.

    A warning says so.
    """
    if train is None or samples is None:
        return _Made(small, None, small.model)
    trained = train(small)
    metric = samples.task.metrics[0]
    before, after = (_judged(one, samples) for one in (small.model, trained.model))
    if metric.gain(before, after) >= 0:
        return _Made(small, trained, trained.model)
    log.warning(
        "Training made it worse on the validation samples (%s before, %s after), so the model before it is kept; a "
        "smaller lr or more epochs may help.",
        *(metric.written(value) for value in (before, after)),
    )
    return _Made(small, trained, small.model)


def _within(
    limit: float,
    speedup: float,
    whole: float | None,
    remove: Callable[[float], Pruned],
    train: Callable[[Pruned], FitResult] | None,
    samples: Samples | None,
    name: str,
) -> _Made:
    """The largest speed-up up to ``speedup`` that costs no more than ``limit``.

    Raises:
        TargetError: there is none.
        InputError: there are no data to judge by.
    """
    if whole is None or samples is None:
        raise InputError("max_drop needs data to judge by.", where="max_drop", next_step="data=…")
    metric = samples.task.metrics[0]
    costs: dict[float, float] = {}
    for wanted in tried([speedup]):
        made = _made(remove(wanted), train, samples)
        costs[wanted] = metric.loss(whole, _judged(made.model, samples))
        if costs[wanted] <= limit:
            return made
    raise too_costly(costs, limit, metric, name)


def _example(model: nn.Module, samples: Samples | None, given: ExampleInputs | None) -> ExampleInputs:
    if given is not None:
        return given
    if samples is None:
        raise InputError(
            "The shape of the model's input is not known.",
            where="example_inputs",
            next_step="data=…, or example_inputs=torch.zeros(1, 3, 224, 224)",
        )
    found: ExampleInputs = one_sample(samples.splits.train, device_for(None, model))
    return found


def _judged(model: nn.Module, samples: Samples) -> float:
    """The task's first metric on the validation samples."""
    return _headline(model, samples.splits.val, samples.task)


def _headline(model: nn.Module, data: Data, task: Task) -> float:
    return evaluate(model, data, task=task)[task.metrics[0].key]


def _before_and_after(
    model: nn.Module,
    small: nn.Module,
    whole: float | None,
    tested_on: Data | None,
    samples: Samples | None,
    task: Task,
) -> tuple[float | None, float | None]:
    """On the test images or, where there are none, on the validation samples; there the model has ``whole``."""
    if tested_on is not None:
        return _headline(model, tested_on, task), _headline(small, tested_on, task)
    return whole, None if samples is None else _judged(small, samples)


def _tested_on(data: Data | None, test: Data | None) -> Data | None:
    return data if test is None and isinstance(data, DataSettings) and _has_test(data) else test


def _has_test(data: DataSettings) -> bool:
    try:
        DATASETS[data.dataset].find(data, "test")
    except InputError:
        return data.task is not None
    return True


def _faster(whole: nn.Module, small: nn.Module, example: ExampleInputs, batch: int, device: torch.device) -> float:
    """How many times faster the smaller model is, the two in turns."""
    inputs = random_inputs(example, batch, 0)
    times = times_interleaved({"whole": whole, "small": small}, inputs, RUNS, device=device)
    return gain(times["whole"], times["small"]).median
