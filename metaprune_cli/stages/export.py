"""Models → files that run without metaprune, each of them read again and compared before it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaprune_cli.config import DataSettings, ExportFormat, ExportSettings
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.export import onnx_file
from metaprune_cli.workflows.export.capture import Subject
from metaprune_cli.workflows.export.formats import FORMATS
from metaprune_cli.workflows.export.writing import Exported, exports_in, write_file
from metaprune_cli.workflows.inputs import shaped
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.paths import Sources, check_targets, find_sources, plan_targets

__all__ = ["Exported", "export"]


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
        opened = shaped(open_model(file.path, source), data)
        subject = Subject(opened.model, opened.example(), opened.architecture, settings.static_batch)
        for name, target in zip(settings.format, row, strict=True):
            about = _about(opened, settings, name)
            done.append(write_file(subject, name, target, settings, source=str(opened.path), about=about))
            progress.step(error=done[-1].error)
    progress.end()
    return tuple(done)


def _targets(sources: Sources, output: Path | None, formats: Sequence[ExportFormat]) -> list[list[Path]]:
    """Where the files go; an existing one may only be an export of the same format."""
    endings = [FORMATS[name].ending for name in formats]
    if output is not None and not sources.many and len(formats) == 1 and FORMATS[formats[0]].is_folder:
        check_targets([output], exports_in(formats), inputs=[source.path for source in sources.files])
        return [[output]]
    return plan_targets(sources, output, endings, exports_in(formats))


def _about(opened: Opened, settings: ExportSettings, name: ExportFormat) -> dict[str, Any]:
    """What the file says about itself."""
    made = Made.by("export", inputs={"model": opened.path}, format=name, static_batch=settings.static_batch)
    return {
        "architecture": opened.architecture.to_document(),
        "lineage": list(opened.lineage),
        "made_by": made.document(),
        "inputs": dict(made.inputs),
    }
