"""Neuron graphs → models: the inverse of encode, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaprune_cli.metrics.macs import count_params
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.loading import ModelSource, open_graph, save
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.paths import find_sources, plan_targets


@dataclass(frozen=True)
class Decoded:
    """One model that was written."""

    input: str
    output: str
    architecture: str
    params: int


def decode(
    graphs: Sequence[Path], output: Path | None, *, source: ModelSource, progress: Progress
) -> tuple[Decoded, ...]:
    """Write the model that every graph stands for.

    Args:
        graphs: files, or folders of graph artifacts.
        output: a file, or a folder where there are several inputs.
        source: whether factories that a graph names may be imported.
        progress: is told about each graph.
    """
    sources = find_sources(graphs, ("graph",))
    targets = plan_targets(sources, output, ("decoded",), "model")
    progress.begin("decode", len(sources.files))
    done = []
    for file, (target,) in zip(sources.files, targets, strict=True):
        opened = open_graph(file.path, source)
        made = Made.by("decode", inputs={"graph": file.path})
        save(opened.model, target, opened, made, step={}, metrics={})
        done.append(Decoded(str(file.path), str(target), opened.architecture.name, count_params(opened.model)))
        progress.step()
    progress.end()
    return tuple(done)
