"""Models → smaller models, each removal checked on the spot."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.config import Criterion, DataSettings, PruneSettings
from metaprune_cli.data import ImageSplit, load_splits
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.metrics.calling import logits_of
from metaprune_cli.pruning.check import Check, How, Weights, check
from metaprune_cli.pruning.criteria import unit_scores
from metaprune_cli.pruning.plan import FamilyPlan, Plan, make_plan
from metaprune_cli.pruning.surgery import apply_plan
from metaprune_cli.stages.images import check_fits
from metaprune_cli.stages.loading import ModelSource, Opened, open_model, save
from metaprune_cli.stages.made import Made
from metaprune_cli.stages.paths import find_sources, plan_targets
from metaprune_cli.stages.structures import Structures
from metaprune_cli.training.progress import Progress


@dataclass(frozen=True)
class PrunedFile:
    """One model pruned to one speed-up, or the plan of it; MACs are those of one input.

    ``output`` is None in a dry run; ``error`` is the relative difference between the small model and the masked
    original, None in a dry run and where the two cannot be compared (then ``not_comparable`` says why). ``reference``
    ("masked" or "survivors") and ``weights`` ("own" or "random") say what it was measured with, as in ``Check``.
    """

    input: str
    output: str | None
    requested: float
    achieved: float
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    error: float | None
    not_comparable: str | None
    reference: How | None
    weights: Weights | None
    families: tuple[FamilyPlan, ...]


def prune(
    models: Sequence[Path],
    output: Path | None,
    settings: PruneSettings,
    *,
    source: ModelSource,
    data: DataSettings | None,
    device: torch.device,
    progress: Progress,
    dry_run: bool = False,
) -> tuple[PrunedFile, ...]:
    """Prune every model to every speed-up of the settings.

    Args:
        models: files, or folders of model artifacts.
        output: a file, or a folder where there are several results.
        settings: the speed-ups, and how units are ranked.
        source: how foreign model files are opened.
        data: the images the criterion ``taylor`` takes its gradients on (training split), and the input's shape.
        device: where the gradients are computed.
        progress: is told about each model.
        dry_run: make the plans only; write nothing.

    Raises:
        TargetError: a speed-up cannot be met, or nothing would be removed.
    """
    if not settings.speedup:
        raise InputError("No speed-up is given.", where="prune.speedup", next_step="--speedup X")
    sources = find_sources(models, ("model",))
    tags = [f"pruned-{speedup:g}x" for speedup in settings.speedup]
    targets: Sequence[Sequence[Path | None]]
    targets = [[None] * len(tags)] * len(sources.files) if dry_run else plan_targets(sources, output, tags, "model")
    splits = load_splits(data) if settings.criterion == "taylor" and data is not None else None
    structures = Structures(source)
    progress.begin("prune", len(sources.files))
    done: list[PrunedFile] = []
    for file, row in zip(sources.files, targets, strict=True):
        opened = open_model(file.path, source)
        gradients = None
        if splits is not None and data is not None:
            opened = opened.of_shape(splits.input_shape[1:])
            check_fits(opened, splits)
            gradients = loss_gradients(opened.model, splits.train, settings.batches, data.batch_size, device)
        elif data is not None and not opened.says_its_inputs:
            opened = opened.of_shape(load_splits(data).input_shape[1:])
        done.extend(
            _prune(opened, structures.graph_of(opened), row, settings, gradients, data if splits is not None else None)
        )
        progress.step()
    progress.end()
    return tuple(done)


def _prune(
    opened: Opened,
    graph: NeuronGraph,
    targets: Sequence[Path | None],
    settings: PruneSettings,
    gradients: Mapping[str, Tensor] | None,
    data: DataSettings | None,
) -> Iterator[PrunedFile]:
    """One model to every speed-up: all plans are made before anything is written."""
    generator = torch.Generator().manual_seed(settings.seed)
    criterion, importance = criterion_for(settings, opened), importance_of(opened)
    scores = unit_scores(
        graph, graph.tensors, criterion, gradients=gradients, importance=importance, generator=generator
    )
    plans = [
        make_plan(graph, scores, speedup, scope=settings.scope, max_ratio=settings.max_ratio)
        for speedup in settings.speedup
    ]
    for plan, target in zip(plans, targets, strict=True):
        if target is None:
            yield _described(opened, plan)
            continue
        small = apply_plan(opened.model, graph, plan, opened.example())
        checked = check(opened.model, small, graph, plan, opened.example())
        # the other speed-ups have no part in this file
        own = replace(settings, speedup=(plan.requested,), criterion=criterion)
        made = Made.by("prune", seed=settings.seed, inputs={"model": opened.path}, prune=own, data=data)
        _save(small, target, opened, made, plan, checked, step={"criterion": own.criterion, "scope": own.scope})
        yield _described(opened, plan, target, checked)


def criterion_for(settings: PruneSettings, opened: Opened) -> Criterion:
    """What ``auto`` is for this model."""
    if settings.criterion != "auto":
        return settings.criterion
    return "group-l2" if opened.importance is None else "metanet"


def importance_of(opened: Opened) -> Tensor | None:
    """What a metanetwork says of every unit, shape (units,)."""
    return None if opened.importance is None else torch.tensor(opened.importance)


def _save(
    small: nn.Module, target: Path, opened: Opened, made: Made, plan: Plan, checked: Check, step: Mapping[str, Any]
) -> None:
    step = {"requested": plan.requested, "achieved": plan.speedup, **step}
    metrics = {"speedup": plan.speedup, "macs": plan.macs_after, "params": plan.params_after}
    opened = replace(opened, zeros=opened.zeros.of_survivors() if opened.zeros else None)
    save(
        small, target, opened, made, step=step, metrics=metrics, pruning=plan.to_document() | {"check": asdict(checked)}
    )


def _described(opened: Opened, plan: Plan, target: Path | None = None, checked: Check | None = None) -> PrunedFile:
    return PrunedFile(
        input=str(opened.path),
        output=None if target is None else str(target),
        requested=plan.requested,
        achieved=plan.speedup,
        macs_before=plan.macs_before,
        macs_after=plan.macs_after,
        params_before=plan.params_before,
        params_after=plan.params_after,
        error=None if checked is None else checked.error,
        not_comparable=None if checked is None else checked.reason,
        reference=None if checked is None else checked.how,
        weights=None if checked is None else checked.weights,
        families=plan.families,
    )


def loss_gradients(
    model: nn.Module, images: ImageSplit, batches: int, batch_size: int, device: torch.device
) -> dict[str, Tensor]:
    """Gradient of the cross-entropy, summed over the first ``batches`` shuffled batches; on the CPU, by entry."""
    probe = copy.deepcopy(model).to(device).eval().requires_grad_(True)
    for inputs, labels in islice(images.batches(batch_size, shuffle_seed=0, device=device), batches):
        F.cross_entropy(logits_of(probe(inputs)), labels).backward()
    return {name: parameter.grad.cpu() for name, parameter in probe.named_parameters() if parameter.grad is not None}
