"""A folder that ``from_pretrained`` opens: config.json, weights, and code where one number a width does not suffice."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.trace.tracer import call
from metaprune_cli.models import Architecture
from metaprune_cli.models.assemble import assemble
from metaprune_cli.models.huggingface.classes import PREFIX, auto_classes, model_class, offline
from metaprune_cli.models.huggingface.fitting import fitted_config
from metaprune_cli.models.huggingface.pruned_code import MODULE, code_for, entries_for
from metaprune_cli.models.recognise import shapes_of
from metaprune_cli.models.registry import skeleton
from metaprune_cli.places import CONFIG
from metaprune_cli.workflows.export.capture import Subject, quietly
from metaprune_cli.workflows.export.weights import changed_attributes

ABOUT = "metaprune.json"
"""What the folder says of itself, and by which one of ours is told from other people's."""
CLOSE = 1e-5


def save(subject: Subject, about: str, folder: Path) -> None:
    """Write the folder.

    Where numbers in the configuration say the widths of the pruned model, it is a folder as any other. Where layers
    have widths of their own, a file of code beside it makes a subclass that reads them from a table.

    Raises:
        InputError: the model is none of ``transformers``, or is not a class any more but a program.
    """
    architecture = _of_transformers(subject)
    name = architecture.name.partition(":")[2]
    state = subject.model.state_dict()

    def holds(config: Mapping[str, Any]) -> bool:
        return _alike(subject, Architecture(architecture.name, config), state)

    config = fitted_config(name, architecture.args, shapes_of(state), holds)
    folder.mkdir()
    if config is not None:
        _save_pretrained(assemble(Architecture(architecture.name, config), state, folder), folder)
    else:
        _save_pretrained(subject.model, folder)
        _add_code(subject.model, architecture, folder)
    (folder / ABOUT).write_text(about + "\n", encoding="utf-8")


def load(subject: Subject, folder: Path) -> nn.Module:
    """The model again, as ``from_pretrained`` opens the folder."""
    code = folder / f"{MODULE}.py"
    base = _of_transformers(subject).name.partition(":")[2]
    found: Any = getattr(_imported(code), f"Pruned{base}") if code.exists() else model_class(base)
    with offline(), quietly():
        model: nn.Module = found.from_pretrained(folder, local_files_only=True).eval()
    return model


def is_ours(folder: Path) -> bool:
    """Whether a folder is an export of this command, or there is nothing in it."""
    return folder.is_dir() and ((folder / ABOUT).is_file() or not any(folder.iterdir()))


def _of_transformers(subject: Subject) -> Architecture:
    architecture = subject.architecture
    if architecture is None or not architecture.name.startswith(f"{PREFIX}:"):
        raise InputError(
            "Only models of transformers can be written as a folder for from_pretrained.",
            expected=f"{PREFIX}:CLASS",
            got="no architecture" if architecture is None else architecture.name,
            where="--format huggingface",
            next_step="--format torch-export or safetensors",
        )
    if isinstance(subject.model, Program):
        raise InputError(
            "The pruned model is a program, and from_pretrained opens classes.",
            expected="a model that its author's class follows",
            got="sizes that the code of the class fixes were changed",
            where="--format huggingface",
            next_step="prune it again with --route class; or --format torch-export, which writes programs",
        )
    return architecture


def _alike(subject: Subject, architecture: Architecture, state: Mapping[str, Tensor]) -> bool:
    """Whether the class with this configuration computes what the model computes."""
    try:
        other = assemble(architecture, state, Path(CONFIG))
        with torch.no_grad():
            pairs = [list(leaves(call(model, subject.inputs(1)), Tensor)) for model in (subject.model, other)]
    except (MetapruneError, RuntimeError, ValueError):
        return False
    return len(pairs[0]) == len(pairs[1]) and all(
        one.shape == two.shape and torch.allclose(one, two, rtol=CLOSE, atol=CLOSE)
        for one, two in zip(*pairs, strict=True)
    )


def _save_pretrained(model: Any, folder: Path) -> None:
    with offline(), quietly():
        model.save_pretrained(folder)


def _add_code(model: Any, architecture: Architecture, folder: Path) -> None:
    base = architecture.name.partition(":")[2]
    original = skeleton(architecture)
    before = shapes_of(original.state_dict())
    shapes = {name: shape for name, shape in shapes_of(model.state_dict()).items() if shape != before[name]}
    autos = auto_classes(base, model.config.model_type)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config |= entries_for(base, autos, shapes, changed_attributes(model, original))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / f"{MODULE}.py").write_text(code_for(base), encoding="utf-8")


def _imported(path: Path) -> Any:
    """The module in a file that was written just now."""
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
