"""Models → files that run without metaprune, each of them read again and compared before it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metaprune_cli.config import DataSettings, ExportFormat, ExportSettings
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.export import onnx_file
from metaprune_cli.workflows.export.capture import Subject
from metaprune_cli.workflows.export.check import Compared, compare
from metaprune_cli.workflows.export.formats import FORMATS
from metaprune_cli.workflows.inputs import shaped
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.paths import Replaceable, Sources, find_sources, plan_targets, replace_file


@dataclass(frozen=True)
class Exported:
    """One file that was written.

    Attributes:
        input: the model's file.
        output: the file.
        format: its format.
        bytes: its size.
        batch: the one batch size it takes; None: any.
        route: ``class`` or ``program`` (see ARCHITECTURE.md).
        error: the largest relative error found.
        batches: the batch sizes it was checked with.
        inputs: random inputs of each batch size.
        telling: whether the model's outputs depend on its inputs; if not, the check says nothing.
    """

    input: str
    output: str
    format: ExportFormat
    bytes: int
    batch: int | None
    route: str
    error: float
    batches: tuple[int, ...]
    inputs: int
    telling: bool


def export(
    models: Sequence[Path],
    output: Path | None,
    settings: ExportSettings,
    *,
    source: ModelSource,
    data: DataSettings | None,
    progress: Progress,
) -> tuple[Exported, ...]:
    """Write every model in every format of the settings.

    Args:
        models: files, or folders of model artifacts.
        output: a file, or a folder where there are several results.
        settings: formats, batch size, and how closely files have to agree with the model.
        source: how foreign model files are opened.
        data: says the input's shape where neither the file nor ``source`` does.
        progress: is told about each file.

    Raises:
        InputError: a model cannot be written in a format, or a package for it is missing.
        NumericsError: a file does not compute what its model computes; it is not kept.
    """
    if "onnx" in settings.format:
        onnx_file.check_installed()
    sources = find_sources(models, ("model",))
    targets = _targets(sources, output, settings.format)
    progress.begin("export", len(sources.files) * len(settings.format))
    done = []
    for file, row in zip(sources.files, targets, strict=True):
        subject = Subject(shaped(open_model(file.path, source), data), settings.static_batch)
        for name, target in zip(settings.format, row, strict=True):
            done.append(_export(subject, name, target, settings))
            progress.step(error=done[-1].error)
    progress.end()
    return tuple(done)


def _targets(sources: Sources, output: Path | None, formats: Sequence[ExportFormat]) -> list[list[Path]]:
    """Where the files go; an existing one may only be an export of the same format."""
    endings = [FORMATS[name].ending for name in formats]

    def is_ours(file: Path) -> bool:
        fitting = [name for name in formats if len(formats) == 1 or file.name.endswith(FORMATS[name].ending)]
        return file.is_file() and any(FORMATS[name].is_ours(file) for name in fitting)

    return plan_targets(sources, output, endings, Replaceable("an export of ours in the same format", is_ours))


def _export(subject: Subject, name: ExportFormat, target: Path, settings: ExportSettings) -> Exported:
    form, opened = FORMATS[name], subject.opened
    about = _about(opened, settings, name)
    batches = (settings.static_batch,) if settings.static_batch else (1, settings.batch)
    found: list[Compared] = []

    def write(part: Path) -> None:
        try:
            form.write(subject, about, part)
            run = form.read(subject, part)
        except (MetapruneError, OSError):
            raise
        except Exception as error:
            raise _failed(name, error) from error
        found.append(compare(subject, run, batches, settings.inputs, settings.tolerance))

    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, write)
    return Exported(
        input=str(opened.path),
        output=str(target),
        format=name,
        bytes=target.stat().st_size,
        batch=None if name == "safetensors" else settings.static_batch,
        route="program" if isinstance(opened.model, Program) else "class",
        **asdict(found[0]),
    )


def _failed(name: ExportFormat, error: Exception) -> InputError:
    """Whatever PyTorch's exporters raise where they do not know an operator."""
    return InputError(
        f"PyTorch cannot write this model as {name}, or not read it again.",
        got=f"{type(error).__name__}: {error}"[:400],
        where="--format",
        next_step="try another --format; --debug shows the traceback",
    )


def _about(opened: Opened, settings: ExportSettings, name: ExportFormat) -> dict[str, Any]:
    """What the file says about itself."""
    made = Made.by("export", inputs={"model": opened.path}, format=name, static_batch=settings.static_batch)
    return {
        "architecture": opened.architecture.to_document(),
        "lineage": list(opened.lineage),
        "made_by": made.document(),
        "inputs": dict(made.inputs),
    }
