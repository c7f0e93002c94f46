"""A model, or an architecture, → a PruningNet: weights for any widths of its layers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.artifacts import write_artifact
from metaprune_cli.config import DataSettings, PruneSettings, PruningNetSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.methods.pruning_net.files import KIND, to_parts
from metaprune_cli.methods.pruning_net.generator import memory_of
from metaprune_cli.methods.pruning_net.network import PruningNet
from metaprune_cli.methods.pruning_net.training import train, untrained
from metaprune_cli.models.assemble import widths_to_load
from metaprune_cli.pruning.cost import speedup
from metaprune_cli.tasks import Metric
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.precision import resolved
from metaprune_cli.training.progress import About, Progress
from metaprune_cli.training.replicas import score_on
from metaprune_cli.training.seeds import derive
from metaprune_cli.workflows.anew import architecture_of, new_model, with_new_weights
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.device import threads_for
from metaprune_cli.workflows.loading import ModelSource, Opened, inherited
from metaprune_cli.workflows.made import Made, code_of
from metaprune_cli.workflows.paths import check_targets, find_sources, plan_targets
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.side_by_side import side_by_side
from metaprune_cli.workflows.spending import PASSES, TRAINING
from metaprune_cli.workflows.task import with_task
from metaprune_cli.workflows.teachers import open_fitting
from metaprune_cli.workflows.trainer import Trainer, shared_out
from metaprune_cli.workflows.width_spaces import widths_and_crops

OF_PRUNING = (
    "criterion",
    "reduction",
    "normaliser",
    "max_ratio",
    "round_to",
    "keep_heads",
    "route",
    "rules",
    "batches",
)
"""The settings of pruning that say which widths there are, and which units stay longest."""


@dataclass(frozen=True)
class TrainedNet:
    """A PruningNet that was written; ``headline`` and ``val_loss`` are means over random widths, nothing finetuned.

    ``epochs`` is 0 where an earlier run had finished it already. ``memory`` are the bytes that its directions take
    while they are trained; ``speedup`` is that of the smallest widths.
    """

    output: str
    input: str | None
    generator: str
    route: str
    genes: int
    speedup: float
    params: int
    memory: int
    epochs: int
    metric: Metric
    headline: float
    val_loss: float

    def to_document(self) -> dict[str, Any]:
        """Plain values, the headline by its metric's name."""
        values = {name: value for name, value in vars(self).items() if name not in ("metric", "headline")}
        return values | {f"val_{self.metric.key}": self.headline}


def pruning_net(
    models: Sequence[Path],
    output: Path | None,
    settings: PruningNetSettings,
    pruning: PruneSettings,
    *,
    source: ModelSource,
    data: DataSettings,
    device: torch.device,
    progress: Progress,
    resume: bool = False,
    jobs: int = 1,
    ranks: Ranks = ALONE,
    ddp: bool = False,
) -> tuple[TrainedNet, ...]:
    """Train a PruningNet of every model; without models one of the architecture that ``source`` names.

    Args:
        models: files, or folders of model artifacts; none: ``source.arch``, from scratch.
        output: a file, or a folder where there are several models.
        settings: of the PruningNet and its training.
        pruning: which widths there are: rules, the most that may go, multiples; in which order units stay; the route.
        source: how foreign model files are opened.
        data: the images.
        device: where the training runs.
        progress: is told about each epoch.
        resume: skip what an earlier run finished, and go on from its checkpoint.
        jobs: how many are trained at a time.
        ranks: the processes of this run; they share the models out among themselves.
        ddp: instead, all of them train each together.
    """
    between, together = shared_out(ranks, ddp=ddp, jobs=jobs)
    todo = _jobs(models, output, settings, source)
    files = [path for path, _ in todo if path is not None]
    data = with_task(data, files, allow_import=source.allow_import, preprocessing=source.preprocessing)
    trainer = Trainer(settings.training, data, device, resume, together)
    work = functools.partial(_train, trainer=trainer, settings=settings, pruning=pruning, source=source)
    return side_by_side(work, todo, jobs=jobs, label="pruning-net", progress=progress, ranks=between)


def _jobs(
    models: Sequence[Path], output: Path | None, settings: PruningNetSettings, source: ModelSource
) -> list[tuple[Path | None, Path]]:
    """The model's file and the one to write, for every PruningNet."""
    if models:
        sources = find_sources(models, ("model",))
        targets = plan_targets(sources, output, ("pruningnet",), KIND)
        return [(file.path, target) for file, (target,) in zip(sources.files, targets, strict=True)]
    if source.arch is None or output is None:
        raise InputError(
            "There is no model to make a PruningNet of.",
            expected="MODEL, or --arch NAME with -o FILE",
            got="neither" if source.arch is None else "no -o",
        )
    if settings.start == "trained":
        raise InputError(
            "An architecture has no trained weights to start from.",
            expected="a model's file, or a start from scratch",
            got=source.arch,
            where="--start",
            next_step="--start scratch, or metaprune pruning-net MODEL",
        )
    check_targets([output], KIND)
    return [(None, output)]


def _train(
    job: tuple[Path | None, Path],
    progress: Progress,
    *,
    trainer: Trainer,
    settings: PruningNetSettings,
    pruning: PruneSettings,
    source: ModelSource,
) -> TrainedNet:
    path, target = job
    opened = _opened(path, target, settings, source, trainer)
    made = Made.by(
        "pruning-net",
        seed=settings.seed,
        inputs={} if path is None else {"model": path},
        digests={"data": trainer.splits.digest} | code_of(opened.architecture.name, pruning.criterion),
        architecture=opened.architecture,
        **{"pruning-net": replace(settings, precision=resolved(settings.precision, trainer.device))},
        prune={name: value for name, value in asdict(pruning).items() if name in OF_PRUNING},
        data=trainer.data,
        device=trainer.device.type,
        ranks=trainer.ranks.world,
    )
    images = Calibration(Samples.of(trainer.data), pruning, trainer.device)
    run = PruningRun.of(opened, opened.neuron_graph(), pruning, images)
    space, crops = widths_and_crops(run, ordered=settings.start == "trained")
    net = untrained(opened.model, run.graph, space, crops, settings)
    metrics = trainer.metrics_if_done(made, target)
    done = metrics is not None
    if metrics is None:
        metrics = _fitted(net, opened, target, made, settings, trainer, progress)
    cost = net.sampler.cost.macs
    return TrainedNet(
        output=str(target),
        input=None if path is None else str(path),
        generator=net.config.generator,
        route=crops.route,
        genes=len(space.grids),
        speedup=speedup(cost(space.kept(space.whole())), cost(space.kept(space.smallest()))),
        params=sum(parameter.numel() for parameter in net.parameters()),
        memory=memory_of(run.graph, net.config.generator, net.config.hidden),
        epochs=0 if done else settings.epochs,
        metric=trainer.task.metrics[0],
        headline=metrics[f"val_{trainer.task.metrics[0].key}"],
        val_loss=metrics["val_loss"],
    )


def _opened(
    path: Path | None, target: Path, settings: PruningNetSettings, source: ModelSource, trainer: Trainer
) -> Opened:
    """The model, its weights drawn anew where the PruningNet is to start from scratch.

    Raises:
        InputError: it is a program, which cannot be built again.
    """
    splits, task, seed = trainer.splits, trainer.task, derive(settings.seed, "weights")
    if path is None:
        architecture = architecture_of(str(source.arch), source.arch_args, splits, task, source.input_shape)
        opened = new_model(architecture, seed, splits, task, target, source.preprocessing)
    else:
        opened = open_fitting(path, source, splits, task)
        if isinstance(opened.model, Program):
            raise InputError(
                "A PruningNet is made of models of a class of their own, and this one is a program.",
                where=path,
                next_step="take the model that it was pruned from",
            )
        if settings.start == "scratch":
            opened = replace(with_new_weights(opened, seed), lineage=())
    return replace(opened, task=trainer.data.task, preprocessing=trainer.data.preprocessing)


def _fitted(
    net: PruningNet,
    opened: Opened,
    target: Path,
    made: Made,
    settings: PruningNetSettings,
    trainer: Trainer,
    progress: Progress,
) -> Mapping[str, Any]:
    """Train it, write it, and return its figures."""
    checkpoint, ranks, splits = made.checkpoint(target), trainer.ranks, trainer.splits
    shared: dict[str, Any] = {"task": trainer.task, "batch_size": trainer.data.batch_size, "device": trainer.device}
    whole = net.sampler.cost.macs(net.space.kept(net.space.whole()))
    with threads_for(whole * trainer.data.batch_size):
        result = train(
            net,
            splits.train,
            settings,
            augment=trainer.data.augment != "none",
            progress=About(progress, opened.path.name),
            val=splits.val,
            state=ranks.from_first(checkpoint.load) if trainer.resume else None,
            on_epoch=checkpoint.save if ranks.first else None,
            ranks=ranks,
            **shared,
        )
        score = score_on(result.model, splits.val, ranks=ranks, **shared)
    spent = round(PASSES * net.sampler.mean_macs() * len(splits.train) * settings.epochs)  # generating is apart
    metrics = {f"val_{score.metric.key}": score.headline, "val_loss": score.loss, TRAINING: spent}
    trained = result.model.cpu()
    assert isinstance(trained, PruningNet)
    if ranks.first:
        write(trained, target, opened, made, metrics, result.history, settings)
        checkpoint.discard()
    return metrics


def write(
    net: PruningNet,
    target: Path,
    opened: Opened,
    made: Made,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    settings: PruningNetSettings,
) -> str:
    """Write a PruningNet with all that is known of its model; returns the digest."""
    tensors, document = to_parts(net)
    step = {
        "command": made.command,
        "input": opened.path.name if made.inputs.get("model") else None,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "start": settings.start,
        "generator": net.config.generator,
    }
    document |= {
        "architecture": opened.architecture.to_document(),
        "widths": widths_to_load(opened.architecture, net.base, target),
        "made_by": made.document(),
        "metrics": dict(metrics),
        "history": list(history),
        "lineage": [*opened.lineage, step],
        **inherited(replace(opened, zeros=None)),
    }
    return write_artifact(target, KIND, tensors, document, dict(made.inputs))
