"""What a search starts from: a plain model, or a network that gives weights for any widths of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.artifacts import is_artifact, read_artifact, read_document, read_kind
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.base import WidthNetwork, WidthWeights
from metaprune_cli.methods.registry import methods
from metaprune_cli.models import Architecture
from metaprune_cli.pruning.repair import repaired
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model, preprocessing_of
from metaprune_cli.workflows.spending import LEARNT, TRAINING


def width_kinds() -> tuple[str, ...]:
    """The kinds of artifacts that methods learn; which of them give weights for widths says the file."""
    return tuple(method.learnt.kind for method in methods() if method.learnt is not None)


def given_by(path: Path) -> dict[str, Any]:
    """What a lineage says of a network that has learnt to give weights for widths: its method, and what it cost."""
    kind, metrics = read_kind(path), read_document(path).get("metrics") or {}
    method = next(one for one in methods() if one.learnt is not None and one.learnt.kind == kind)
    return {"method": method.name} | ({LEARNT: metrics[TRAINING]} if TRAINING in metrics else {})


def with_statistics(
    opened: Opened, graph: NeuronGraph, weights: WidthWeights, images: Calibration
) -> tuple[Opened, NeuronGraph]:
    """A network at its whole widths, with BatchNorm statistics of its weights for these, and its graph.

    Args:
        opened: the network.
        graph: its graph.
        weights: say whether anything is to be measured.
        images: on which.

    Raises:
        InputError: there are no images.
    """
    if weights.repair == "none":
        return opened, graph
    model, every = opened.model.to(images.device), torch.ones(graph.units.num_units, dtype=torch.bool)
    measured, _ = repaired(model, model, graph, every, images.shown, weights.repair)
    return replace(opened, model=measured.cpu()), graph.with_tensors(measured.cpu().state_dict())


def open_widths(path: Path, source: ModelSource) -> tuple[Opened, WidthWeights | None]:
    """A model, and where the weights of narrower ones come from, if not from its own units.

    Raises:
        InputError: the file is what a method has learnt that gives no weights for widths.
    """
    kind = read_kind(path) if is_artifact(path) else "model"
    learnt = next((m.learnt for m in methods() if m.learnt is not None and m.learnt.kind == kind), None)
    if learnt is None:
        return open_model(path, source), None
    artifact = read_artifact(path, kind)
    network = learnt.files().open(artifact)
    if not isinstance(network, WidthNetwork):
        raise InputError(
            "Widths cannot be searched for with this file.",
            expected="a model, or a network that gives weights for any widths of one",
            got=f"an artifact of kind {kind}",
            where=path,
            next_step="give the model; metaprune transform comes before a search, not in its place",
        )
    document = artifact.document
    opened = Opened(
        network.model,
        Architecture.from_document(document["architecture"]),
        tuple(document.get("lineage", ())),
        path,
        widths=document.get("widths", {}),
        task=document.get("task"),
        preprocessing=preprocessing_of(document, source),
    )
    return opened, network.weights
