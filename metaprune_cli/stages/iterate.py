"""Models pruned in rounds, with training after each, and finetuned at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.config import DataSettings, IterateSettings, OptimSettings, PruneSettings
from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.pruning.measures import measure_for
from metaprune_cli.pruning.ranking import Limits
from metaprune_cli.pruning.rounds import Room, factors, limits_left, room_of
from metaprune_cli.pruning.targets import Target
from metaprune_cli.stages import finetune, prune
from metaprune_cli.tasks import Metric, Task, measure
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.loading import ModelSource, Opened
from metaprune_cli.workflows.paths import SUFFIX, find_sources, plan_targets
from metaprune_cli.workflows.planning import goals_of
from metaprune_cli.workflows.pruning import limits_for
from metaprune_cli.workflows.task import task_of, with_task
from metaprune_cli.workflows.teachers import open_fitting

ENOUGH = 1.001  # of the rest that a round is to take: below, there is nothing to do in it


@dataclass(frozen=True)
class Round:
    """What one round came to; ``asked`` and ``achieved`` are of the whole model, all rounds so far together.

    ``headline`` is the task's metric on the validation split after the round's training, ``drop`` by how much that is
    worse than the whole model's; ``kept`` is False where that was too much.
    """

    number: int
    asked: float
    achieved: float
    macs: int
    params: int
    headline: float
    drop: float
    kept: bool

    def to_document(self, metric: Metric) -> dict[str, Any]:
        """Plain values, the headline by its metric's name."""
        return {f"val_{metric.key}" if name == "headline" else name: value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Iterated:
    """One model that was written, and how it got there; the headline, before and after, is of the validation split."""

    input: str
    output: str
    quantity: str
    requested: float
    achieved: float
    macs: int
    params: int
    metric: Metric
    whole: float
    headline: float
    rounds: tuple[Round, ...]

    def to_document(self) -> dict[str, Any]:
        """Plain values, the headline by its metric's name."""
        return {
            "input": self.input,
            "output": self.output,
            "quantity": self.quantity,
            "requested": self.requested,
            "achieved": self.achieved,
            "macs": self.macs,
            "params": self.params,
            f"whole_{self.metric.key}": self.whole,
            f"val_{self.metric.key}": self.headline,
            "rounds": [done.to_document(self.metric) for done in self.rounds],
        }


@dataclass(frozen=True)
class Course:
    """What is the same for all models of one call."""

    settings: IterateSettings
    pruning: PruneSettings
    training: OptimSettings
    source: ModelSource
    data: DataSettings
    splits: Splits
    task: Task
    device: torch.device
    progress: Progress
    seed: int
    resume: bool


def iterate(
    models: Sequence[Path],
    output: Path | None,
    settings: IterateSettings,
    *,
    pruning: PruneSettings,
    training: OptimSettings,
    source: ModelSource,
    data: DataSettings,
    seed: int,
    device: torch.device,
    progress: Progress,
    resume: bool = False,
) -> tuple[Iterated, ...]:
    """Prune every model to every target in rounds, and train after each; the files of the rounds stay beside the last.

    Args:
        models: files, or folders of model artifacts.
        output: a file, or a folder where there are several results.
        settings: how many rounds, how far each goes, and when to stop early.
        pruning: the targets, and how units are ranked and repaired in every round.
        training: how the model is trained; its epochs are those after the last round.
        source: how foreign model files are opened.
        data: the images.
        seed: of the training.
        device: where it runs.
        progress: is told about each round.
        resume: rounds that an earlier run has trained are not trained again.

    Raises:
        TargetError: a target cannot be met, or the first round costs more than ``max_drop``.
        InputError: a target is a drop, or there is no training.
    """
    goals = goals_of(pruning)
    _check(goals, training)
    sources = find_sources(models, ("model",))
    targets = plan_targets(sources, output, [f"iterated-{goal.tag}" for goal in goals], "model")
    data = with_task(
        data,
        [file.path for file in sources.files],
        allow_import=source.allow_import,
        preprocessing=source.preprocessing,
    )
    task = task_of(data)
    splits = task.splits(data)
    course = Course(settings, pruning, training, source, data, splits, task, device, progress, seed, resume)
    opened = [open_fitting(file.path, source, splits, task) for file in sources.files]
    return tuple(
        _iterate(model, goal, target, course)
        for model, row in zip(opened, targets, strict=True)
        for goal, target in zip(goals, row, strict=True)
    )


def rounds_of(target: Path) -> Path:
    """The folder with the files of the rounds that lead to ``target``."""
    return target.with_name(target.name.removesuffix(SUFFIX) + ".rounds")


def _check(goals: Sequence[Target], training: OptimSettings) -> None:
    if any(goal.quantity == "drop" for goal in goals):
        raise InputError(
            "Rounds need to know how far they go.",
            expected="a speed-up, or another amount",
            got="drop",
            where="--target",
            next_step="say how far at most with --speedup, and when to stop with --max-drop",
        )
    if not training.epochs:
        raise InputError("There is no training after the last round.", where="finetune.epochs", next_step="--epochs N")


def _iterate(opened: Opened, goal: Target, target: Path, course: Course) -> Iterated:
    """One model to one target."""
    graph = opened.neuron_graph()
    total = _factor(goal, opened, graph, course.device)
    room = room_of(graph, limits_for(opened.model, graph, course.pruning))
    whole = _headline(opened, course)
    rounds: list[Round] = []
    current, achieved = opened.path, 1.0
    plan = factors(total, course.settings.rounds, course.settings.schedule)
    course.progress.begin("rounds", len(plan))
    for number, asked in enumerate(plan, start=1):
        if asked > ENOUGH * achieved:
            place = rounds_of(target) / f"{number}"
            small = _prune(current, place, goal, asked / achieved, asked, room, course)
            trained = _train(Path(str(small.output)), place.with_name(f"{number}.trained{SUFFIX}"), course, short=True)
            drop = course.task.metrics[0].loss(whole, trained.headline)
            limit = course.settings.max_drop
            kept = limit is None or drop <= limit
            after = achieved * small.achieved
            size = small.macs_after, small.params_after
            rounds.append(Round(number, asked, after, *size, headline=trained.headline, drop=drop, kept=kept))
            if not kept:
                break
            current, achieved = Path(trained.output), after
        course.progress.step(achieved=achieved)
    course.progress.end()
    return _finish(opened, goal, total, current, target, whole, rounds, course)


def _finish(
    opened: Opened,
    goal: Target,
    total: float,
    current: Path,
    target: Path,
    whole: float,
    rounds: Sequence[Round],
    course: Course,
) -> Iterated:
    """The last round that was kept, finetuned."""
    kept, metric = [done for done in rounds if done.kept], course.task.metrics[0]
    if not kept:
        raise TargetError(
            f"The first round costs {metric.write(rounds[0].drop)} {metric.difference_unit} already.",
            expected=f"at most {course.settings.max_drop:g}",
            got=f"{metric.written(whole)} before, {metric.written(rounds[0].headline)} at {rounds[0].achieved:.3g}×",
            where=opened.path,
            next_step="more rounds, more --epochs in each, or a larger --max-drop",
        )
    last = _train(current, target, course, short=False)
    return Iterated(
        input=str(opened.path),
        output=last.output,
        quantity=goal.quantity,
        requested=total,
        achieved=kept[-1].achieved,
        macs=kept[-1].macs,
        params=kept[-1].params,
        metric=metric,
        whole=whole,
        headline=last.headline,
        rounds=tuple(rounds),
    )


def _factor(goal: Target, opened: Opened, graph: NeuronGraph, device: torch.device) -> float:
    """How many times less there is to be at the end."""
    if goal.factor is not None:
        return goal.factor
    measure = measure_for(goal, opened.model, graph, opened.example(), device)
    before = measure(torch.ones(graph.units.num_units, dtype=torch.bool))
    if goal.limit_for(before) >= before:
        raise TargetError("Nothing would be removed.", expected=f"less than the {before:g} there are", got=goal.limit)
    return before / goal.limit_for(before)


def _headline(opened: Opened, course: Course) -> float:
    batches = course.splits.val.batches(course.data.batch_size, device=course.device)
    model = opened.model.to(course.device)
    score = measure(model, batches, course.device, course.task)
    model.cpu()
    return score.headline


def _prune(
    path: Path, place: Path, goal: Target, factor: float, asked: float, room: Room, course: Course
) -> prune.PrunedFile:
    """One round's removal."""

    def limits(opened: Opened, graph: NeuronGraph, settings: PruneSettings) -> Limits:
        return limits_left(graph, limits_for(opened.model, graph, settings), room)

    by_macs = goal.quantity == "macs"
    settings = replace(
        course.pruning,
        speedup=(factor,) if by_macs else (),
        target=() if by_macs else (f"{goal.quantity}={factor:.6f}x",),
    )
    (small,) = prune.prune(
        [path],
        place.with_name(f"{place.name}.pruned{SUFFIX}"),
        settings,
        source=course.source,
        data=course.data,
        device=course.device,
        progress=course.progress,
        limits=limits,
        noted={"total": round(asked, 6)},
    )
    return small


def _train(path: Path, target: Path, course: Course, *, short: bool) -> finetune.Finetuned:
    """The training after a round (``short``), or after the last."""
    training = replace(course.training, epochs=course.settings.epochs) if short else course.training
    (trained,) = finetune.finetune(
        [path],
        target,
        training,
        source=course.source,
        data=course.data,
        seed=course.seed,
        device=course.device,
        progress=course.progress,
        resume=course.resume,
    )
    return trained
