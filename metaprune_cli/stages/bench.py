"""How fast models are and how much memory they need, beside their MACs; and why, where the two disagree."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.config import BenchSettings, DataSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.trace.tracer import call
from metaprune_cli.reports import latency
from metaprune_cli.reports.png import check_drawing, write_drawing
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.bench.rig import Rig, Row, Warned
from metaprune_cli.workflows.inputs import shaped
from metaprune_cli.workflows.lineage import base_candidates, base_of
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.paths import find_sources, short_names


@dataclass(frozen=True)
class Benchmark:
    """What was measured, under which conditions, and what there is to warn of."""

    rows: tuple[Row, ...]
    warnings: tuple[Warned, ...]
    setting: Mapping[str, str]

    def to_document(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "setting": dict(self.setting),
            "models": [asdict(row) for row in self.rows],
            "warnings": [asdict(warned) for warned in self.warnings],
        }


def bench(
    models: Sequence[Path],
    settings: BenchSettings,
    *,
    base: Path | None,
    source: ModelSource,
    data: DataSettings | None,
    device: torch.device,
    threads: int | None,
    progress: Progress,
    drawing: Path | None = None,
) -> Benchmark:
    """Measure models in turns, at every batch size of the settings.

    Args:
        models: files, or folders of model artifacts.
        settings: batch sizes and runs, and when to warn.
        base: what speed-ups are against: a file, or a folder with each model's own base; by default the model it was
            made from if that is given too, else the first.
        source: how foreign model files are opened.
        data: says the input's shape where neither the file nor ``source`` does.
        device: where everything is measured.
        threads: of the CPU; None: as many as PyTorch takes.
        progress: is told about each batch size.
        drawing: where to draw the times, a PNG file.

    Raises:
        InputError: a path or a model cannot be used, or two models do not take the same inputs.
    """
    check_drawing(drawing)
    given = _open(models, source, data)
    bases = [] if base is None else _open([base], source, data)
    files = {opened.path.resolve(): opened for opened in [*bases, *given]}
    given, bases = ([files[opened.path.resolve()] for opened in some] for some in (given, bases))
    every = list(files.values())
    _check_alike(every)
    _check_run(every)
    names = short_names([opened.path for opened in every])
    candidates = base_candidates(given, bases)
    models_by_name = {names[opened.path]: opened for opened in every}
    compared = {names[opened.path]: names[base_of(opened, candidates).path] for opened in every}
    with _threads(threads):
        rig = Rig(models_by_name, compared, settings, device)
        found = _measure(rig, progress)
    write_drawing(drawing, functools.partial(latency.draw, found.rows))
    return found


def _measure(rig: Rig, progress: Progress) -> Benchmark:
    rows: list[Row] = []
    warnings: list[Warned] = []
    progress.begin("bench", len(rig.settings.batch))
    for batch in rig.settings.batch:
        found = rig.measured(batch)
        rows += found
        warnings += [rig.warned(row) for row in found if row.verdict == "lags"]
        progress.step(batch=batch)
    progress.end()
    return Benchmark(tuple(rows), tuple(warnings), rig.conditions())


def _open(paths: Sequence[Path], source: ModelSource, data: DataSettings | None) -> list[Opened]:
    return [shaped(open_model(file.path, source), data) for file in find_sources(paths, ("model",)).files]


def _check_alike(models: Sequence[Opened]) -> None:
    """Models that take turns have to run on the same inputs."""
    shapes = {
        str(opened.path): [tuple(tensor.shape) for tensor in leaves(opened.example(), Tensor)] for opened in models
    }
    if any(found != next(iter(shapes.values())) for found in shapes.values()):
        raise InputError(
            "The models do not take the same inputs, so their times cannot be compared.",
            expected="models of one input shape",
            got="\n".join(f"{name}: {found}" for name, found in shapes.items()),
            next_step="measure them apart, or give --input-shape",
        )


@torch.no_grad()
def _check_run(models: Sequence[Opened]) -> None:
    """What a file says of its model's inputs may be wrong: once is tried before anything is measured."""
    for opened in models:
        try:
            call(opened.model, opened.example())
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                "The model does not run on its example inputs.",
                got=f"{type(error).__name__}: {error}"[:300],
                where=opened.path,
                next_step="say what it takes with --input-shape",
            ) from error


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
