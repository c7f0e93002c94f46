"""How much each family of a model can lose: the headline metric when its least important channels alone are gone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from metaprune_cli.config import DataSettings, PruneSettings, SensitivitySettings
from metaprune_cli.errors import TargetError
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.masking import masked_copy
from metaprune_cli.pruning.sensitivity import bearable, without_lowest
from metaprune_cli.reports.files import check_folder
from metaprune_cli.reports.png import check_drawing, write_drawing
from metaprune_cli.reports.sensitivity import FamilySensitivity, Sensitivity, draw, write
from metaprune_cli.tasks import measure
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.loading import ModelSource, Opened
from metaprune_cli.workflows.paths import find_sources, stem
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.task import with_task
from metaprune_cli.workflows.teachers import open_fitting


def sensitivity(
    models: Sequence[Path],
    output: Path | None,
    settings: SensitivitySettings,
    *,
    pruning: PruneSettings,
    source: ModelSource,
    data: DataSettings,
    device: torch.device,
    progress: Progress,
    drawing: Path | None = None,
) -> tuple[Sensitivity, ...]:
    """Try every family of every model by itself, at each ratio; nothing is removed, the units' weights are zeroed.

    Args:
        models: files, or folders of model artifacts.
        output: a folder for table, picture and rules (of several models, a folder in it for each); or None.
        settings: the ratios, how many images, and what a family may cost in the rules.
        pruning: how units are ranked.
        source: how foreign model files are opened.
        data: the images; those of the validation split.
        device: where the models run.
        progress: is told about each family.
        drawing: where to draw the losses of all models, a PNG file.

    Raises:
        TargetError: a model has no family that can lose anything.
        InputError: a model does not fit the images, or something cannot be written.
    """
    check_drawing(drawing)
    sources = find_sources(models, ("model",))
    folders = [
        None if output is None else output / file.relative.with_name(stem(file.path)) if sources.many else output
        for file in sources.files
    ]
    for folder in folders:
        check_folder(folder)
    data = with_task(
        data,
        [file.path for file in sources.files],
        allow_import=source.allow_import,
        preprocessing=source.preprocessing,
    )
    calibration = Calibration(Samples.of(data), pruning, device)
    found = []
    for file, folder in zip(sources.files, folders, strict=True):
        opened = open_fitting(file.path, source, calibration.splits, calibration.task)
        result = _of_model(opened, settings, pruning, calibration, progress, folder)
        if folder is not None:
            write(result, settings.max_drop, folder)
        found.append(result)
    write_drawing(drawing, functools.partial(draw, found))
    return tuple(found)


def _of_model(
    opened: Opened,
    settings: SensitivitySettings,
    pruning: PruneSettings,
    calibration: Calibration,
    progress: Progress,
    folder: Path | None,
) -> Sensitivity:
    graph = opened.neuron_graph()
    run = PruningRun.of(opened, graph, pruning, calibration)
    units, scores = graph.units, run.scores()
    everything = torch.ones(units.num_units, dtype=torch.bool)
    free = [family for family in units.families if family.locked is None]
    if not free:
        raise TargetError(
            "Nothing can be removed: every unit is locked.",
            where=opened.path,
            next_step="metaprune inspect on its graph says why",
        )
    images = calibration.splits.val
    images = images.subset(min(settings.images, len(images)), seed=0)

    def headline(kept: torch.Tensor) -> float:
        model = masked_copy(opened.model, graph, kept).to(calibration.device)
        batches = images.batches(calibration.batch_size, device=calibration.device)
        return measure(model, batches, calibration.device, calibration.task).headline

    whole, metric = headline(everything), calibration.task.metrics[0]
    macs = Cost.of(graph).macs
    rows = []
    progress.begin("sensitivity", len(free))
    for family in free:
        drops = {
            ratio: metric.loss(whole, headline(without_lowest(units, family, scores, ratio)))
            for ratio in sorted(settings.ratios)
        }
        gone = everything.clone()
        gone[family.units] = ~units.prunable[family.units]
        saved = 1 - macs(gone) / macs(everything)
        borne = bearable(drops, settings.max_drop)
        rows.append(FamilySensitivity(family.name, len(family.units), saved, drops, borne, family.kind))
        progress.step(drop=max(drops.values()))
    progress.end()
    return Sensitivity(
        str(opened.path),
        run.criterion,
        len(images),
        metric,
        whole,
        tuple(rows),
        len(units.families) - len(free),
        None if folder is None else str(folder),
    )
