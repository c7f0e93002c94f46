"""Zero weights of models: single ones, all but N of every M, or blocks; no shape changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metaprune_cli.config import DataSettings, SparsifySettings
from metaprune_cli.config_loader import n_of_m, rows_by_columns
from metaprune_cli.errors import InputError
from metaprune_cli.pruning.sparsity import LayerZeros, Zeroing, ZeroPlan, make_zero_plan, zeroed_copy
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model, save
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.paths import find_sources, plan_targets
from metaprune_cli.workflows.structures import Structures
from metaprune_cli.workflows.task import task_of
from metaprune_cli.workflows.zeros import Zeros

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SparsifiedFile:
    """One model with zeros, or the plan of it.

    ``output`` is None in a dry run. ``requested`` and ``sparsity`` are fractions of ``weights``, those of the layers
    that are not skipped.
    """

    input: str
    output: str | None
    kind: str
    pattern: str | None
    requested: float
    sparsity: float
    weights: int
    kept: int
    layers: tuple[LayerZeros, ...]


def sparsify(
    models: Sequence[Path],
    output: Path | None,
    settings: SparsifySettings,
    *,
    source: ModelSource,
    data: DataSettings | None,
    progress: Progress,
    dry_run: bool = False,
) -> tuple[SparsifiedFile, ...]:
    """Zero the weights of smallest magnitude of every model, once for each sparsity of the settings.

    Args:
        models: files, or folders of model artifacts.
        output: a file, or a folder where there are several results.
        settings: the kind, how much, and of which layers.
        source: how foreign model files are opened.
        data: says the input's shape where neither the file nor ``source`` does.
        progress: is told about each model.
        dry_run: make the plans only; write nothing.

    Raises:
        TargetError: there is nothing to zero.
    """
    several = zeroings(settings)
    sources = find_sources(models, ("model",))
    targets: Sequence[Sequence[Path | None]] = [[None] * len(several)] * len(sources.files)
    if not dry_run:
        targets = plan_targets(sources, output, [tag(asked) for asked in several], "model")
    structures = Structures(source)
    progress.begin("sparsify", len(sources.files))
    done: list[SparsifiedFile] = []
    for file, row in zip(sources.files, targets, strict=True):
        opened = open_model(file.path, source)
        if data is not None and not opened.says_its_inputs:
            opened = opened.of_shape(task_of(data).splits(data).item_shape)
        graph, tensors = structures.graph_of(opened), opened.model.state_dict()
        plans = [make_zero_plan(graph, tensors, asked) for asked in several]
        for plan, target in zip(plans, row, strict=True):
            _warn(opened, plan)
            if target is not None:
                _save(opened, plan, target)
            done.append(_described(opened, plan, target))
        progress.step()
    progress.end()
    return tuple(done)


def zeroings(settings: SparsifySettings) -> tuple[Zeroing, ...]:
    """What the settings ask for, once for each sparsity.

    Raises:
        InputError: for no sparsity at all.
    """
    asked = Zeroing(
        settings.kind,
        pattern=n_of_m(settings.pattern, where="sparsify.pattern"),
        tile=rows_by_columns(settings.block, where="sparsify.block"),
        scope=settings.scope,
        classifier=settings.classifier,
        first=settings.first,
        kernel_only=settings.kernel_only,
    )
    if settings.kind == "n:m":
        return (asked,)
    if not settings.sparsity:
        raise InputError("No sparsity is given.", where="sparsify.sparsity", next_step="--sparsity X")
    return tuple(replace(asked, sparsity=sparsity) for sparsity in settings.sparsity)


def tag(asked: Zeroing) -> str:
    """What a file is named by: ``sparse-0.8``, ``sparse-2of4``, ``sparse-4x1-0.5``."""
    parts = [asked.shape and asked.shape.replace(":", "of"), asked.kind != "n:m" and f"{asked.sparsity:g}"]
    return "-".join(["sparse", *(part for part in parts if part)])


def _save(opened: Opened, plan: ZeroPlan, target: Path) -> None:
    asked = plan.asked
    made = Made.by("sparsify", inputs={"model": opened.path}, sparsify=asked)
    zeros = Zeros(asked.kind, asked.shape, tuple(plan.masks)).and_before(opened.zeros)
    step = {"kind": asked.kind, "pattern": asked.shape, "sparsity": asked.fraction, "achieved": plan.sparsity}
    step |= {} if asked.kind == "n:m" else {"scope": asked.scope}
    further = {} if opened.importance is None else opened.importance.to_document()
    save(
        zeroed_copy(opened.model, plan.masks),
        target,
        replace(opened, zeros=zeros),
        made,
        step=step,
        metrics={"sparsity": plan.sparsity, "weights": plan.weights, "kept": plan.kept},
        pruning=plan.to_document(),
        **further,
    )


def _warn(opened: Opened, plan: ZeroPlan) -> None:
    empty = [layer.name for layer in plan.layers if not layer.kept and layer.weights]
    if empty:
        log.warning("%s: nothing is left of %s; --scope family takes as much of each", opened.path, ", ".join(empty))


def _described(opened: Opened, plan: ZeroPlan, target: Path | None) -> SparsifiedFile:
    return SparsifiedFile(
        input=str(opened.path),
        output=None if target is None else str(target),
        kind=plan.asked.kind,
        pattern=plan.asked.shape,
        requested=plan.asked.fraction,
        sparsity=plan.sparsity,
        weights=plan.weights,
        kept=plan.kept,
        layers=plan.layers,
    )
