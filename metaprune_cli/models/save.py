"""Writing a model as an artifact."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from metaprune_cli.artifacts import provenance, split_aliases, write_artifact
from metaprune_cli.config_loader import module_named
from metaprune_cli.graph.program.module import Program
from metaprune_cli.metrics.calling import check_module
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.assemble import widths_to_load
from metaprune_cli.models.programs import KEY, program_to_document, tensors_of
from metaprune_cli.models.recognise import shapes_of, told
from metaprune_cli.models.registry import with_input_shape


def save_model(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    arch: str | Architecture,
    made_by: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Save a model's tensors and how to build it again.

    Args:
        model: any module, pruned or not, on any device.
        path: the artifact to write; one of the same kind is replaced.
        arch: what the model is. From a bare name of ours or torchvision's, the arguments are told by the
            shapes; what leaves no trace there (the number of attention heads) needs an ``Architecture``. Code of yours:
            ``network.py:Net``, from the working directory.
        made_by: how it was made (see ``artifacts.provenance``).
        inputs: SHA-256 of the files it was made from, by name.
        metrics: figures to keep with it.
        extra: further keys of the document.

    Returns:
        The artifact's digest.

    Raises:
        InputError: this is no model; its entries are not the architecture's, so that it could not be loaded again; or
            the file cannot be written.
    """
    check_module(model)
    path = Path(path)
    state = model.state_dict()
    architecture = with_input_shape(told(module_named(arch), shapes_of(state)) if isinstance(arch, str) else arch)
    further: dict[str, Any] = {}
    if isinstance(model, Program):
        state, further = tensors_of(model), {KEY: program_to_document(model)}
    else:
        widths = widths_to_load(architecture, model, path)
        further = {"widths": widths} if widths else {}
    tensors, aliases = split_aliases(state)
    document = {
        **(extra or {}),
        **further,
        "architecture": architecture.to_document(),
        "made_by": dict(made_by) if made_by is not None else provenance("save_model", {}),
        "metrics": dict(metrics or {}),
        "aliases": aliases,
    }
    return write_artifact(path, "model", tensors, document, inputs or {})
