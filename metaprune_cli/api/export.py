"""Writing a model for places without metaprune, in one call."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from torch import nn

from metaprune_cli.artifacts import provenance
from metaprune_cli.config import ExportFormat, ExportSettings
from metaprune_cli.config_loader import parse
from metaprune_cli.errors import InputError
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.metrics.calling import device_of, takes_model
from metaprune_cli.models import Architecture
from metaprune_cli.models.recognise import shapes_of, told
from metaprune_cli.models.registry import with_input_shape
from metaprune_cli.workflows.export import onnx_file
from metaprune_cli.workflows.export.capture import Subject
from metaprune_cli.workflows.export.formats import FORMATS
from metaprune_cli.workflows.export.writing import Exported, exports_in, write_file
from metaprune_cli.workflows.paths import check_targets


@takes_model
def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: ExportFormat | None = None,
    example_inputs: ExampleInputs,
    arch: str | Architecture | None = None,
    static_batch: int | None = None,
    tolerance: float = ExportSettings.tolerance,
) -> Exported:
    """Write a model as ``metaprune export`` does: read again, and compared with the model before it is kept.

    Args:
        model: the network, pruned or not; written in eval mode; not changed.
        path: the file; an existing one is replaced if it is an export of the same format.
        format: ``torch-export``, ``onnx``, ``torchscript``, or ``safetensors``; None: what the file's ending says.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        arch: what the model is, as for ``save_model``; ``safetensors`` needs it, as the file says in what the model
            differs from the class as its author builds it.
        static_batch: the one batch size the file is for; None: any.
        tolerance: how large the relative error may be.

    Raises:
        InputError: the format is unknown, the model cannot be written in it, or the file would destroy another.
        NumericsError: the file does not compute what the model computes; it is not kept.
    """
    target = Path(path)
    asked = {"format": format or _format_of(target), "static_batch": static_batch, "tolerance": tolerance}
    settings = parse(ExportSettings, asked, section="export", where="mp.export")
    name = check_writable(target, format)
    built = None if arch is None else _built(arch, model)
    subject = Subject(_as_written(model), example_inputs, built, static_batch)
    about: dict[str, Any] = {
        "architecture": None if built is None else built.to_document(),
        "lineage": [],
        "made_by": provenance("export", {"format": name, "static_batch": static_batch}),
        "inputs": {},
    }
    return write_file(subject, name, target, settings, source=type(model).__name__, about=about)


def check_writable(target: Path, format: ExportFormat | None = None) -> ExportFormat:
    """The format in which a file would be written, which it could be.

    Raises:
        InputError: the format is unknown or needs packages that are missing, or the file would destroy another.
    """
    name = format or _format_of(target)
    if name == "onnx":
        onnx_file.check_installed()
    check_targets([target], exports_in([name]))
    return name


def _built(arch: str | Architecture, model: nn.Module) -> Architecture:
    """The architecture, with the arguments that show in the model's shapes where it is a bare name."""
    return with_input_shape(told(arch, shapes_of(model.state_dict())) if isinstance(arch, str) else arch)


def _format_of(target: Path) -> ExportFormat:
    """The format whose files end like this."""
    found = [name for name, form in FORMATS.items() if target.name.endswith(form.ending)]
    if not found:
        raise InputError(
            "The file name does not tell the export format.",
            expected=", ".join(f"{form.ending} ({name})" for name, form in FORMATS.items()),
            got=target.name,
            next_step='give the format: format="onnx"',
        )
    return found[0]


def _as_written(model: nn.Module) -> nn.Module:
    """The model in eval mode on the CPU: itself, where it is that already."""
    at_home = device_of(model.state_dict()).type == "cpu"
    if at_home and not any(module.training for module in model.modules()):
        return model
    return copy.deepcopy(model).cpu().eval()
