"""A zoo of neuron graphs → a metanetwork."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.config import DataSettings, MetanetSettings, MetaTrainSettings
from metaprune_cli.console.sheet import csv_text
from metaprune_cli.data import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.learning.examples import examples_for
from metaprune_cli.methods.metanet.learning.meta import ZooEntry
from metaprune_cli.methods.metanet.learning.meta import meta_train as train_metanetwork
from metaprune_cli.pruning.observing import EVIDENCE
from metaprune_cli.tasks import Task
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.precision import resolved
from metaprune_cli.training.progress import About, Progress
from metaprune_cli.training.seeds import seed_everything
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.device import threads_for
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.loading import ModelSource, Opened, open_graph
from metaprune_cli.workflows.made import Checkpoint, Made, code_of
from metaprune_cli.workflows.paths import SUFFIX, Sources, check_targets, find_sources, replace_file
from metaprune_cli.workflows.task import task_of, with_task


@dataclass(frozen=True)
class MetaTrained:
    """The metanetwork that was written; ``best_epoch`` is the one it is of, chosen on the validation models.

    ``epochs`` is 0 where an earlier run had finished it already.
    """

    output: str
    history: str
    graphs: int
    validation: int
    epochs: int
    best_epoch: int
    params: int
    best: Mapping[str, float]


def meta_train(
    graphs: Sequence[Path],
    validation: Sequence[Path],
    output: Path,
    metanet: MetanetSettings,
    settings: MetaTrainSettings,
    *,
    source: ModelSource,
    data: DataSettings,
    device: torch.device,
    progress: Progress,
    shares: Sequence[Path] = (),
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> MetaTrained:
    """Train a metanetwork on ``graphs`` and keep its best epoch on ``validation``.

    The history goes to a CSV file beside the output, line by line as the epochs end.

    Args:
        graphs: graph files, or folders of them: what is trained on.
        validation: the same, to choose the epoch by; may be empty, then the last graph is kept apart for it.
        output: the metanetwork's file.
        metanet: the metanetwork's size.
        settings: objective, optimiser and length.
        source: whether factories that a graph names may be imported.
        data: the images.
        device: where the training runs.
        progress: is told about each epoch.
        shares: pruned models, or folders of them: of each structure that is trained on at least one, whose layers'
            shares the score head is to learn.
        resume: skip what an earlier run finished, and go on from its checkpoint.
        ranks: the processes that train it together; the first of them writes the files.
    """
    check_targets([output], "metanetwork")
    train_files, validation_files = _split(find_sources(graphs, ("graph",)), validation)
    data = with_task(
        data, (*train_files, *validation_files), allow_import=source.allow_import, preprocessing=source.preprocessing
    )
    task = task_of(data)
    splits = task.splits(data)
    opened = [_opened(path, source, splits, task) for path in (*train_files, *validation_files)]
    entries = [ZooEntry(found.path.name, found.model, found.neuron_graph()) for found in opened]
    if metanet.evidence:
        _check_observed(entries)
    share_files = [file.path for file in find_sources(shares, ("model",)).files]
    known = [entry.graph for entry in entries], (*train_files, *validation_files), share_files
    examples = examples_for(*known, settings, trained_on=len(train_files))
    entries = [replace(entry, examples=own) for entry, own in zip(entries, examples, strict=True)]
    made = Made.by(
        "meta-train",
        seed=settings.seed,
        inputs=_named("train", train_files) | _named("validation", validation_files) | _named("shares", share_files),
        digests={"data": splits.digest} | code_of(*(found.architecture.name for found in opened)),
        metanet=metanet,
        **{"meta-train": replace(settings, precision=resolved(settings.precision, device))},
        data=data,
        device=device.type,
    )
    seed_everything(settings.seed)
    network = MetaNetwork(config_of(metanet, entries, settings))
    checkpoint, history_file = made.checkpoint(output), history_of(output)
    done = ranks.from_first(lambda: _metrics_if_done(made, output)) if resume else None
    metrics = done or {}
    if done is None:
        with threads_for(max(entry.graph.macs for entry in entries) * settings.batch_size):
            result = train_metanetwork(
                network,
                entries[: len(train_files)],
                entries[len(train_files) :],
                splits.train,
                splits.val,
                settings,
                task=task,
                device=device,
                progress=About(progress, output.name),
                augment=data.augment != "none",
                state=ranks.from_first(checkpoint.load) if resume else None,
                on_epoch=(lambda state: _keep(state, checkpoint, history_file)) if ranks.first else None,
                ranks=ranks,
            )
        network.load_state_dict(result.metanet_state)
        metrics = {"best_epoch": result.best_epoch, **_best(result.history, result.best_epoch)}
        if ranks.first:
            network.cpu().save(output, {"made_by": made.document(), "metrics": metrics}, made.inputs)
            write_history(history_file, result.history)
            checkpoint.discard()
    return MetaTrained(
        output=str(output),
        history=str(history_file),
        graphs=len(train_files),
        validation=len(validation_files),
        epochs=settings.epochs if done is None else 0,
        best_epoch=int(metrics["best_epoch"]),
        params=sum(parameter.numel() for parameter in network.parameters()),
        best={name: value for name, value in metrics.items() if name != "best_epoch"},
    )


def history_of(output: Path) -> Path:
    """Where the history of the run that makes ``output`` goes: ``metanet.history.csv``."""
    return output.with_name(output.name.removesuffix(SUFFIX) + ".history.csv")


def write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write one line for each epoch; a reader never meets half a file."""
    names = sorted({name for row in history for name in row}, key=lambda name: (name != "epoch", name))
    text = csv_text(history, names)
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def _metrics_if_done(made: Made, output: Path) -> dict[str, Any] | None:
    """What an earlier run found; not while its checkpoint is there: it was killed before its history was whole."""
    whole = history_of(output).is_file() and not made.checkpoint(output).path.exists()
    return made.metrics_if_done(output) if whole else None


def _keep(state: TrainState, checkpoint: Checkpoint, history_file: Path) -> None:
    checkpoint.save(state)
    write_history(history_file, state.history)


def _split(train: Sources, validation: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files to train on, and those to choose the epoch by."""
    files = [file.path for file in train.files]
    if validation:
        return files, [file.path for file in find_sources(validation, ("graph",)).files]
    if len(files) < 2:
        raise InputError(
            "There is no graph left for choosing the best epoch.",
            expected="at least two graphs, or --validation",
            got=f"{len(files)} graph",
            next_step="--validation GRAPH, with graphs that are not trained on",
        )
    return files[:-1], files[-1:]


def _opened(path: Path, source: ModelSource, splits: Splits, task: Task) -> Opened:
    """One graph and its model, which the data must fit."""
    opened = open_graph(path, source)
    check_fits(opened, splits, task)
    return opened


def _check_observed(entries: Sequence[ZooEntry]) -> None:
    """Refuse graphs without what a metanetwork is to learn to read.

    Raises:
        InputError: names all of them.
    """
    if blind := [entry.name for entry in entries if not entry.graph.evidence]:
        raise InputError(
            "A metanetwork that reads what images show cannot learn it from graphs that do not have it.",
            got="\n".join(blind),
            where="metanet.evidence",
            next_step="metaprune encode MODEL --observe 512 --dataset NAME, for each of them; or leave the setting out",
        )


def _named(role: str, files: Sequence[Path]) -> dict[str, Path]:
    """Files by role and place: their order counts, and those of two folders may be called alike."""
    return {f"{role}/{place}/{path.name}": path for place, path in enumerate(files)}


def config_of(settings: MetanetSettings, entries: Sequence[ZooEntry], training: MetaTrainSettings) -> MetaNetworkConfig:
    """The metanetwork's configuration; the per-kernel codec learns the kernels that the zoo has."""
    kernels = {block.kernel for entry in entries for block in entry.graph.blocks}
    return MetaNetworkConfig(
        layers=settings.layers,
        hidden=settings.hidden,
        codec=settings.codec,
        scale_blocks=settings.scale_blocks,
        edge_precision=settings.edge_precision,
        ratio=settings.ratio,
        kernels=tuple(sorted(kernels)) if settings.codec == "per-kernel" else (),
        score_head=training.criterion == "metanet",
        normaliser=training.normaliser,
        by_speedup=training.by_speedup,
        evidence=EVIDENCE if settings.evidence else (),
    )


def _best(history: Sequence[Mapping[str, Any]], epoch: int) -> dict[str, float]:
    """The figures of the chosen epoch; none where it is the untrained metanetwork."""
    row = next((row for row in history if row.get("epoch") == epoch), {})
    return {name: value for name, value in row.items() if name != "epoch" and value is not None}
