"""Models → neuron graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metaprune_cli.artifacts import write_artifact
from metaprune_cli.config import DataSettings, EncodeSettings
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.program.module import Program
from metaprune_cli.models.programs import KEY, constants_of, program_to_document
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.inputs import shaped
from metaprune_cli.workflows.loading import ModelSource, Opened, inherited, open_model
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.observing import Observer
from metaprune_cli.workflows.paths import find_sources, plan_targets
from metaprune_cli.workflows.samples import Samples, without_images
from metaprune_cli.workflows.structures import Structures
from metaprune_cli.workflows.task import with_task


@dataclass(frozen=True)
class Encoded:
    """One graph that was written; MACs are those of one input."""

    input: str
    output: str
    neurons: int
    edges: int
    families: int
    locked: int
    macs: int


def encode(
    models: Sequence[Path],
    output: Path | None,
    settings: EncodeSettings,
    *,
    source: ModelSource,
    data: DataSettings | None,
    device: torch.device,
    progress: Progress,
) -> tuple[Encoded, ...]:
    """Write the neuron graph of every model.

    Args:
        models: files, or folders of model artifacts.
        output: a file, or a folder where there are several inputs.
        settings: on how many images units are observed.
        source: how foreign model files are opened.
        data: the images; says the input's shape where neither the file nor ``source`` does.
        device: where images pass.
        progress: is told about each model.
    """
    sources = find_sources(models, ("model",))
    targets = plan_targets(sources, output, ("graph",), "graph")
    structures = Structures(source)
    if settings.observe and data is None:
        raise without_images("encode.observe")
    observer = None
    if settings.observe and data is not None:
        files = [file.path for file in sources.files]
        data = with_task(data, files, allow_import=source.allow_import, preprocessing=source.preprocessing)
        observer = Observer(Samples.of(data), settings.observe, device)
    progress.begin("encode", len(sources.files))
    done = []
    for file, (target,) in zip(sources.files, targets, strict=True):
        opened = shaped(open_model(file.path, source), data)
        graph, observed = structures.graph_of(opened), dict[str, Any]()
        if observer is not None:
            graph = observer.look(opened, graph)
            observed = {"encode": settings, "digests": {"data": observer.samples.splits.digest}}
        done.append(_encode(opened, graph, Made.by("encode", inputs={"model": opened.path}, **observed), target))
        progress.step()
    progress.end()
    return tuple(done)


def _encode(opened: Opened, graph: NeuronGraph, made: Made, target: Path) -> Encoded:
    tensors, structure = graph.to_parts()
    document = {
        "structure": structure,
        "architecture": opened.architecture.to_document(),
        "made_by": made.document(),
        "lineage": list(opened.lineage),
        **inherited(opened),
    }
    if isinstance(opened.model, Program):
        document[KEY] = program_to_document(opened.model)
        tensors |= constants_of(opened.model)
    if opened.widths:
        document["widths"] = opened.widths
    write_artifact(target, "graph", tensors, document, made.inputs)
    families = graph.units.families
    return Encoded(
        input=str(opened.path),
        output=str(target),
        neurons=graph.num_neurons,
        edges=graph.num_edges,
        families=len(families),
        locked=sum(family.locked is not None for family in families),
        macs=graph.macs,
    )
