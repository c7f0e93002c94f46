"""Models through what a method has learnt: the same architectures with weights that are easier to prune."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from metaprune_cli.artifacts import read_artifact
from metaprune_cli.config import DataSettings, TransformSettings
from metaprune_cli.graph import decode
from metaprune_cli.methods.registry import learnt_by
from metaprune_cli.training.loop import recalibrate_
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.loading import ModelSource, Opened, open_either, save
from metaprune_cli.workflows.made import Made, code_of
from metaprune_cli.workflows.observing import USUAL, Observer
from metaprune_cli.workflows.paths import find_sources, plan_targets
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.task import task_of, with_task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transformed:
    """One model that was written; ``change`` is ‖new − old‖ / ‖old‖ over all its parameters."""

    input: str
    output: str
    change: float
    recalibrated: bool


def transform(
    inputs: Sequence[Path],
    output: Path | None,
    settings: TransformSettings,
    *,
    metanetwork: Path,
    source: ModelSource,
    data: DataSettings | None,
    device: torch.device,
    progress: Progress,
) -> tuple[Transformed, ...]:
    """Rewrite the weights of every model.

    Args:
        inputs: model or graph files, or folders of such artifacts.
        output: a file, or a folder where there are several inputs.
        settings: whether BatchNorm statistics are measured anew on the training images, and on how many batches.
        metanetwork: the metanetwork's artifact, or the name of one that comes with the package.
        source: how foreign model files are opened.
        data: the images; None: there are none, so nothing is recalibrated or observed.
        device: where images pass.
        progress: is told about each model.
    """
    sources = find_sources(inputs, ("model", "graph"))
    targets = plan_targets(sources, output, ("transformed",), "model")
    learnt = learnt_by("transform")
    files = learnt.files()
    artifact = read_artifact(files.find(metanetwork), learnt.kind)
    method = files.open(artifact)
    if data is not None:
        data = with_task(
            data,
            [file.path for file in sources.files],
            allow_import=source.allow_import,
            preprocessing=source.preprocessing,
        )
    samples = None if data is None else Samples.of(data)
    observer = Observer(samples, USUAL, device) if samples is not None and method.reads_images else None
    recalibrates = settings.recalibrate and samples is not None
    splits = samples.splits if samples is not None and (recalibrates or observer is not None) else None
    progress.begin("transform", len(sources.files))
    done = []
    for file, (target,) in zip(sources.files, targets, strict=True):
        opened = open_either(file.path, source)
        if splits is not None and data is not None:
            opened = opened.of_shape(splits.item_shape)
            check_fits(opened, splits, task_of(data))
        graph = opened.neuron_graph()
        if observer is not None and not graph.evidence:
            graph = observer.shown(opened.model, graph)
        proposal = method.propose(graph)
        proposal.check_fits(graph)
        rewritten = decode(graph.with_tensors(proposal.tensors or graph.tensors), opened.model)
        if recalibrates and splits is not None and data is not None:
            size, augment = data.batch_size, data.augment != "none"
            recalibrate_(rewritten.to(device), splits.train, settings.batches, batch_size=size, augment=augment)
        made = Made.by(
            "transform",
            inputs={"model": file.path, learnt.kind: artifact.path},
            digests=({} if splits is None else {"data": splits.digest}) | code_of(opened.architecture.name),
            transform=settings,
            data=data if splits else None,
        )
        step = {learnt.kind: artifact.digest, "recalibrated": recalibrates}
        step |= {} if proposal.scores is None else {"scored": True}
        step |= {"observed": True} if method.reads_images and graph.evidence else {}
        change = _change(opened.model, rewritten.cpu())
        scored = {} if proposal.scores is None else Importance.proposed(proposal.scores).to_document()
        save(rewritten, target, _dense(opened), made, step=step, metrics={"change": change}, **scored)
        done.append(Transformed(str(file.path), str(target), change, recalibrates))
        progress.step()
    progress.end()
    return tuple(done)


def _dense(opened: Opened) -> Opened:
    """The same without its zeros: they are not kept, the metanetwork rewrites every weight."""
    if opened.zeros is not None:
        log.warning("%s: its zeros are not kept, every weight is rewritten; prune after transform", opened.path)
    return replace(opened, zeros=None)


@torch.no_grad()
def _change(old: nn.Module, new: nn.Module) -> float:
    before = nn.utils.parameters_to_vector(old.parameters())
    change = nn.utils.parameters_to_vector(new.parameters()) - before
    return float(change.norm() / before.norm().clamp(min=torch.finfo(before.dtype).tiny))
