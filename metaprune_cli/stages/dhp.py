"""Models trained with weights that are generated from latents, which shrink until every target is met."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import DataSettings, DhpSettings, OptimSettings, PruneSettings
from metaprune_cli.errors import TargetError
from metaprune_cli.graph import decode
from metaprune_cli.methods.dhp.generated import Generated
from metaprune_cli.methods.dhp.shrinking import Shrinker
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.pruning.targets import Target
from metaprune_cli.stages.finetune import NOTED
from metaprune_cli.tasks import Metric, measure
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.loop import RECALIBRATION_BATCHES, fit, recalibrate_, steps_in
from metaprune_cli.training.precision import resolved
from metaprune_cli.training.progress import About, Progress
from metaprune_cli.training.seeds import seeded
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.beginning import Begun, Course, Job, new_source, open_job, what_goes
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.device import threads_for
from metaprune_cli.workflows.loading import ModelSource, Opened, save
from metaprune_cli.workflows.made import Checkpoint, Made, code_of
from metaprune_cli.workflows.paths import find_sources, plan_targets
from metaprune_cli.workflows.planning import planned_by
from metaprune_cli.workflows.pruning import Pruned, PruningRun
from metaprune_cli.workflows.side_by_side import side_by_side
from metaprune_cli.workflows.task import with_task
from metaprune_cli.workflows.teachers import open_teacher, teachers_for
from metaprune_cli.workflows.trainer import Trainer, shared_out

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShrunkFile:
    """One model that was written, at one target.

    ``whole`` is the headline on the validation split just before the removed units were taken out, ``headline`` after.
    """

    output: str
    requested: float
    achieved: float
    macs: int
    params: int
    epochs: int
    whole: float
    headline: float


@dataclass(frozen=True)
class Shrunk:
    """One model, and what it became; ``headline`` is that of the smallest."""

    input: str | None
    metric: Metric
    files: tuple[ShrunkFile, ...]

    @property
    def headline(self) -> float:
        """Of the smallest."""
        return self.files[-1].headline

    def to_documents(self) -> list[dict[str, Any]]:
        """Plain values, a row for each file, the headline by its metric's name."""
        names = {"whole": f"whole_{self.metric.key}", "headline": f"val_{self.metric.key}"}
        return [
            {"input": self.input} | {names.get(name, name): value for name, value in asdict(file).items()}
            for file in self.files
        ]


def dhp(
    models: Sequence[Path],
    output: Path | None,
    settings: DhpSettings,
    *,
    pruning: PruneSettings,
    training: OptimSettings,
    source: ModelSource,
    data: DataSettings,
    seed: int,
    device: torch.device,
    progress: Progress,
    teacher: Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    ranks: Ranks = ALONE,
    ddp: bool = False,
) -> tuple[Shrunk, ...]:
    """Train every model once; on the way it passes all targets, and leaves a file at each.

    Args:
        models: files, or folders of model artifacts; none: a new model of ``source.arch``.
        output: a file, or a folder where there are several results.
        settings: of the latents.
        pruning: the speed-ups, and what may go of which layers; the rest of it means nothing here.
        training: how the training is done otherwise. Its epochs are those of ``settings``; patience and sparse learning
            are left out, as the latents decide what the training ends with.
        source: how foreign model files are opened.
        data: the images.
        seed: of the training, and of new weights.
        device: where the training runs.
        progress: is told about each model and each epoch.
        teacher: a model whose outputs all learn from, or a folder with each model's own base in it.
        resume: skip what an earlier run finished, and go on from its checkpoint.
        jobs: how many models are trained at a time (see ``side_by_side``).
        ranks: the processes of this run; they share the models out among themselves.
        ddp: instead, all of them train each model together.

    Raises:
        TargetError: a speed-up is out of reach, or was not reached within the epochs.
        InputError: there is nothing to begin with, or something cannot be used.
    """
    pruning = what_goes(pruning)
    sources = find_sources(models, ("model",)) if models else new_source(settings, source, seed)
    tags = [f"dhp-{speedup:g}x" for speedup in sorted(set(pruning.speedup))]
    targets = plan_targets(sources, output, tags, "model")
    paths = [file.path for file in sources.files] if models else []
    between, together = shared_out(ranks, ddp=ddp, jobs=jobs)
    taught_by = [] if teacher is None else [file.path for file in find_sources([teacher], ("model",)).files]
    data = with_task(data, [*paths, *taught_by], allow_import=source.allow_import, preprocessing=source.preprocessing)
    training = replace(training, epochs=settings.epochs, patience=0, sparsity=0.0)
    trainer = Trainer(training, data, device, resume, together)
    teachers = teachers_for(paths, teacher, source, trainer.splits, trainer.task) if models else [teacher]
    work = functools.partial(_shrink, course=Course(settings, pruning, trainer, source, seed))
    begun_with: list[Path | None] = [*paths] if models else [None]
    rows = zip(begun_with, targets, teachers, strict=True)
    todo = [Job(path, tuple(row), taught) for path, row, taught in rows]
    return side_by_side(work, todo, jobs=jobs, label="dhp", progress=progress, ranks=between)


def _shrink(job: Job, progress: Progress, *, course: Course) -> Shrunk:
    """One model, from one file, or none, into one for every target."""
    trainer = course.trainer
    opened, begun = open_job(job, course)
    taught = None if job.teacher is None else open_teacher(job.teacher, course.source, trainer.splits, trainer.task)
    built = {"model": opened.architecture} | ({} if taught is None else {"teacher": taught.architecture})
    made = Made.by(
        "dhp",
        seed=course.seed,
        inputs={name: path for name, path in (("model", job.path), ("teacher", job.teacher)) if path is not None},
        digests={"data": trainer.splits.digest} | code_of(*(architecture.name for architecture in built.values())),
        dhp=replace(course.settings, start=begun),
        prune=course.pruning,
        finetune=replace(trainer.settings, precision=resolved(trainer.settings.precision, trainer.device)),
        architectures={name: architecture.to_document() for name, architecture in built.items()},
        data=trainer.data,
        device=trainer.device.type,
        ranks=trainer.ranks.world,  # BatchNorm sees so much of a batch
    )
    writing = _Writing(job, course, opened, begun, made)
    files = writing.all_if_done()
    if files is None:
        files = _train(writing, None if taught is None else taught.model, progress)
    return Shrunk(None if job.path is None else str(job.path), trainer.task.metrics[0], files)


def _train(writing: _Writing, teacher: nn.Module | None, progress: Progress) -> tuple[ShrunkFile, ...]:
    """The training, from the model's own weights or from a checkpoint, to the last target."""
    trainer, opened, settings = writing.course.trainer, writing.opened, writing.course.settings
    graph, example = opened.neuron_graph(), opened.example()
    run = PruningRun.of(opened, graph, writing.course.pruning, Calibration.none(writing.course.pruning))
    trained = writing.begun == "trained"
    model = Generated(opened.model, graph, example, settings, trained=trained, seed=writing.course.seed)
    speedups = writing.course.speedups
    planned = planned_by(run, model.scores(), Target("macs", factor=speedups[-1]))
    allowed = planned.allowed
    steps = steps_in(trainer.splits.train, trainer.data.batch_size) * settings.epochs
    shrinker = Shrinker(allowed.graph, allowed.limits, speedups, settings, steps)
    writing.begin(replace(run, limits_given=allowed.limits), shrinker)
    checkpoint = writing.made.checkpoint(writing.job.targets[-1])
    with threads_for(count_macs(opened.model, example) * trainer.data.batch_size):
        result = fit(
            model,
            trainer.splits.train,
            trainer.settings,
            task=trainer.task,
            batch_size=trainer.data.batch_size,
            augment=trainer.data.augment != "none",
            seed=writing.course.seed,
            device=trainer.device,
            progress=About(progress, opened.path.name),
            val=trainer.splits.val,
            teacher=teacher,
            state=writing.resumed(checkpoint) if trainer.resume else None,
            on_epoch=checkpoint.save if trainer.ranks.first else None,
            after_step=writing.shrinker,
            until=writing,
            ranks=trainer.ranks,
        )
        missed: TargetError | None = None
        try:
            files = writing.finish(result.model, result.history)
        except TargetError as error:
            files, missed = (), error  # no epochs are left, with which the checkpoint could go on
    if trainer.ranks.first:
        checkpoint.discard()
    if missed is not None:
        raise missed
    return files


class _Writing:
    """Writes a model at every target that the training passes, and tells it when there is nothing left to do."""

    run: PruningRun
    shrinker: Shrinker

    def __init__(self, job: Job, course: Course, opened: Opened, begun: Begun, made: Made) -> None:
        self.job, self.course, self.opened, self.begun, self.made = job, course, opened, begun, made
        self._files: dict[int, ShrunkFile] = {}

    def begin(self, run: PruningRun, shrinker: Shrinker) -> None:
        """The model as it is before the training, and how it shrinks."""
        self.run, self.shrinker = run, shrinker

    def made_at(self, number: int) -> Made:
        """How the model at a target is made."""
        return replace(self.made, parameters={**self.made.parameters, "requested": self.course.speedups[number]})

    def all_if_done(self) -> tuple[ShrunkFile, ...] | None:
        """What an earlier run that is resumed has finished; None unless that is all."""

        def done() -> tuple[ShrunkFile, ...] | None:
            found = self._done(len(self.course.speedups))
            if found is not None:
                self.made.checkpoint(self.job.targets[-1]).discard()
            return found

        return self.course.trainer.ranks.from_first(done) if self.course.trainer.resume else None

    def resumed(self, checkpoint: Checkpoint) -> TrainState | None:
        """The state to go on from, if there is one, and the models at all targets that it had passed are there."""
        state, self._files = self.course.trainer.ranks.from_first(lambda: self._found(checkpoint))
        return state

    def _found(self, checkpoint: Checkpoint) -> tuple[TrainState | None, dict[int, ShrunkFile]]:
        state = checkpoint.load()
        if state is None:
            return None, {}
        reached = int(state.model["reached"]) if "reached" in state.model else 0
        passed = min(reached, len(self.course.speedups) - 1)  # the last is written when the training has ended
        done = self._done(passed)
        if done is None:
            log.warning("%s: a model of the interrupted run is gone; starting from the beginning", checkpoint.path)
            return None, {}
        return state, dict(enumerate(done))

    def __call__(self, model: nn.Module) -> bool:
        """Write what has been reached but the last; whether the training is to end."""
        assert isinstance(model, Generated)
        for number in range(min(self.shrinker.met(model), len(self.course.speedups) - 1)):
            if number not in self._files:
                self._write(number, model, ())
        return self.course.settings.shrink == "threshold" and self.shrinker.is_met(model)

    def finish(self, model: nn.Module, history: Sequence[Mapping[str, float]]) -> tuple[ShrunkFile, ...]:
        """Write the last; all of them.

        Raises:
            TargetError: it was not reached.
        """
        assert isinstance(model, Generated)
        self.shrinker.check_met(model)
        self._write(len(self.course.speedups) - 1, model, history)
        return tuple(self._files[number] for number in range(len(self.course.speedups)))

    def _done(self, count: int) -> tuple[ShrunkFile, ...] | None:
        """The files of the first targets, if all are there and made in just this way."""
        found = []
        for number in range(count):
            metrics = self.made_at(number).metrics_if_done(self.job.targets[number])
            if metrics is None:
                return None
            found.append(self._described(number, metrics))
        return tuple(found)

    def _write(self, number: int, model: Generated, history: Iterable[Mapping[str, float]]) -> None:
        trainer = self.course.trainer
        with seeded(0, trainer.device):  # what the training draws does not depend on what is written on its way
            metrics = trainer.ranks.from_first(lambda: self._written(number, model, list(history)))
        self._files[number] = self._described(number, metrics)

    def _written(self, number: int, model: Generated, history: list[Mapping[str, float]]) -> dict[str, Any]:
        """Convert the network as it is, and write it; its figures."""
        trainer, speedup = self.course.trainer, self.course.speedups[number]
        whole = self._whole(model)
        run = replace(self.run, model=whole, graph=self.run.graph.with_tensors(whole.state_dict()))
        planned = planned_by(run, model.scores(), Target("macs", factor=speedup), fill=False)
        pruned = planned.carried_out()
        steps = steps_in(trainer.splits.train, trainer.data.batch_size)
        epochs = math.ceil(int(model.steps) / steps)
        metric, val = trainer.task.metrics[0], self._score(pruned.model)
        metrics = {
            "speedup": pruned.plan.speedup,
            "macs": pruned.plan.macs_after,
            "params": pruned.plan.params_after,
            "epochs": epochs,
            f"whole_{metric.key}": self._score(whole)[0],
            f"val_{metric.key}": val[0],
            "val_loss": val[1],
        }
        pruned.model.cpu()
        self._save(number, pruned, epochs, metrics, history)
        return metrics

    def _whole(self, model: Generated) -> nn.Module:
        """The network with its weights as they are, still with all units."""
        trainer = self.course.trainer
        whole = decode(self.run.graph.with_tensors(model.state()), self.opened.model)
        if trainer.settings.ema or trainer.settings.recalibrate:
            size, augment = trainer.data.batch_size, trainer.data.augment != "none"
            recalibrate_(
                whole.to(trainer.device), trainer.splits.train, RECALIBRATION_BATCHES, batch_size=size, augment=augment
            )
        return whole.cpu().eval()

    def _score(self, model: nn.Module) -> tuple[float, float]:
        """Headline and loss on the validation split."""
        trainer = self.course.trainer
        batches = trainer.splits.val.batches(trainer.data.batch_size, device=trainer.device)
        score = measure(model.to(trainer.device), batches, trainer.device, trainer.task)
        return score.headline, score.loss

    def _save(
        self, number: int, pruned: Pruned, epochs: int, metrics: Mapping[str, Any], history: list[Mapping[str, float]]
    ) -> None:
        settings, data = self.course.trainer.settings, self.course.trainer.data
        step = {
            "requested": self.course.speedups[number],
            "achieved": pruned.plan.achieved,
            "epochs": epochs,
            "start": self.begun,
            "shrink": self.course.settings.shrink,
            "seed": self.course.seed,
            **({} if self.job.path else {"input": None, "arch": self.course.source.arch}),
            **({} if self.job.teacher is None else {"teacher": self.job.teacher.name}),
            **{name: value for name in NOTED if (value := getattr(settings, name))},
        }
        opened = replace(self.opened, task=data.task, preprocessing=data.preprocessing)
        plan = pruned.plan.to_document() | {"check": asdict(pruned.checked)}
        save(
            pruned.model,
            self.job.targets[number],
            opened,
            self.made_at(number),
            step=step,
            metrics=metrics,
            history=history,
            pruning=plan,
        )

    def _described(self, number: int, metrics: Mapping[str, Any]) -> ShrunkFile:
        key = self.course.trainer.task.metrics[0].key
        return ShrunkFile(
            str(self.job.targets[number]),
            self.course.speedups[number],
            metrics["speedup"],
            metrics["macs"],
            metrics["params"],
            metrics["epochs"],
            metrics[f"whole_{key}"],
            metrics[f"val_{key}"],
        )
