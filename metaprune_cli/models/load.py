"""Opening a model, whatever kind of file it is in."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from metaprune_cli.artifacts import is_artifact, join_aliases, read_artifact
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.metrics.calling import not_in_inference_mode
from metaprune_cli.models.adapting import Adapted
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.assemble import assemble
from metaprune_cli.models.foreign import as_named, ready, told_by_names
from metaprune_cli.models.huggingface.folder import open_folder
from metaprune_cli.models.naming import own_names, renamed
from metaprune_cli.models.programs import KEY, program_from_document
from metaprune_cli.models.recognise import check_args, recognise, shapes_of, told
from metaprune_cli.models.registry import shows_in_its_keys, with_input_shape
from metaprune_cli.models.signatures import most_keys
from metaprune_cli.models.state_files import read_state_file
from metaprune_cli.places import is_pretrained

log = logging.getLogger(__name__)

SPARE = 8
"""So many times the tensors of a model can be in its file: optimiser state, averages."""

LARGEST_UNSTATED = 1 << 24
"""Values of one input: as many as a colour image of 2,300 by 2,300."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in eval mode on the CPU, what it is, and the JSON document it came with (None for foreign files).

    ``notes`` say what was taken of a foreign file, and what was done to make a model of it.
    """

    model: nn.Module
    architecture: Architecture
    document: dict[str, Any] | None
    path: Path
    notes: tuple[str, ...] = ()


def open_model(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
    allow_import: bool = False,
    input_shape: tuple[int, ...] | None = None,
    key: str | None = None,
) -> Loaded:
    """Open a model and what is known about it: an artifact, a state dict, or (only if trusted) a pickled module.

    A folder that ``save_pretrained`` wrote is opened by its class in ``transformers``, without a network.

    A state dict may lie beside other things, have a wrapper's prefix before its names, be of half precision, or lack
    what older versions of PyTorch did not save; what is done about it is logged. The model gets the shapes in the file,
    so pruned ones load like any other.

    Args:
        path: the file, or the folder.
        arch: the architecture, instead of what the file says or what its keys and shapes tell.
        arch_args: arguments of its builder, over those in the file.
        trust_pickle: open pickles with more than tensors in them, which can run any code.
        allow_import: import a factory that only the file names; one given as ``arch`` is imported anyway.
        input_shape: shape of one input without the batch, instead of what the file or the architecture says.
        key: which of several state dicts in a file to take.

    Raises:
        InputError: no such file, an artifact that is no model, or tensors that do not fit the architecture.
        CorruptFileError: a damaged or unsafe file.
    """
    path = Path(path)
    args = dict(arch_args or {})
    if is_pretrained(path):
        model, found = open_folder(path, arch, args)
        return Loaded(model, replace(found, input_shape=input_shape), None, path)
    if is_artifact(path):
        if key is not None:
            raise InputError("An artifact holds one model alone.", got=key, where="--key", next_step="leave it out")
        return _load_artifact(path, arch, args, allow_import, input_shape)
    loaded = _load_foreign(path, arch, args, trust_pickle, input_shape, key)
    if loaded.notes:
        log.warning("%s: %s", path, "; ".join(loaded.notes))
    return loaded


def _load_foreign(
    path: Path,
    arch: str | None,
    args: dict[str, Any],
    trust_pickle: bool,
    input_shape: tuple[int, ...] | None,
    key: str | None,
) -> Loaded:
    is_known = arch is None or shows_in_its_keys(arch)
    home = None if arch is None or is_known else arch.partition(":")[0]
    file = read_state_file(path, trust_pickle, SPARE * most_keys() if is_known else None, key, home)
    notes = list(file.notes)
    if isinstance(file.content, nn.Module):
        model = ready(file.content, notes, path)
        found = _architecture_of(model) if arch is None else Architecture(arch)
        return Loaded(model, _completed(found, args, input_shape), None, path, tuple(notes))
    if arch is None:
        found, states, said = told_by_names(file.content, path)
        notes += said
    else:
        states = file.content
        found = told(arch, as_named(arch, states))
    check_args(found, args, path)
    adapted, architecture = Adapted(found.name, path), _completed(found, args, input_shape)
    model = assemble(architecture, states, path, adapt=adapted)
    return Loaded(model, architecture, None, path, (*notes, *adapted.notes))


def _completed(found: Architecture, args: Mapping[str, Any], input_shape: tuple[int, ...] | None) -> Architecture:
    return with_input_shape(replace(found, args={**found.args, **args}, input_shape=input_shape))


@not_in_inference_mode
def load_model(
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
    allow_import: bool = False,
    input_shape: tuple[int, ...] | None = None,
    key: str | None = None,
) -> nn.Module:
    """The model in a file, in eval mode on the CPU; arguments and errors are those of ``open_model``."""
    return open_model(
        path,
        arch=arch,
        arch_args=arch_args,
        trust_pickle=trust_pickle,
        allow_import=allow_import,
        input_shape=input_shape,
        key=key,
    ).model


def _load_artifact(
    path: Path, arch: str | None, args: dict[str, Any], allow_import: bool, input_shape: tuple[int, ...] | None
) -> Loaded:
    artifact = read_artifact(path, kind="model")
    try:
        recorded = Architecture.from_document(artifact.document["architecture"])
        tensors = join_aliases(artifact.tensors, artifact.document.get("aliases", {}))
        if KEY not in artifact.document:  # a program has the names it was recorded with
            tensors = renamed(tensors, own_names(recorded.name, tensors))
    except (KeyError, TypeError) as error:
        raise CorruptFileError("The artifact does not say what model it holds.", where=path) from error
    _check_size(recorded, input_shape, path)
    if KEY in artifact.document:
        model: nn.Module = program_from_document(artifact.document[KEY], tensors)
        return Loaded(
            model, replace(recorded, input_shape=input_shape or recorded.input_shape), artifact.document, path
        )
    if args:
        check_args(told(arch or recorded.name, shapes_of(tensors)), args, path)
    inherited = recorded.args if arch in (None, recorded.name) else {}
    chosen = Architecture(arch or recorded.name, {**inherited, **args}, input_shape or recorded.input_shape)
    chosen = with_input_shape(chosen)
    widths = artifact.document.get("widths", {})
    model = assemble(chosen, tensors, path, allow_import or arch is not None, widths)
    return Loaded(model, chosen, artifact.document, path)


def _check_size(recorded: Architecture, stated: tuple[int, ...] | None, path: Path) -> None:
    """Refuse inputs so large that running the model once may fill the memory, where only the file asks for them."""
    shape = recorded.input_shape or ()
    if stated is None and math.prod(shape) > LARGEST_UNSTATED:
        raise InputError(
            "The file names a very large input, and models are run on what they take.",
            expected=f"at most {LARGEST_UNSTATED} values where nobody says otherwise",
            got="x".join(map(str, shape))[:200],
            where=path,
            next_step=f"if that is right, --input-shape {','.join(map(str, shape))[:200]}",
        )


def _architecture_of(module: nn.Module) -> Architecture:
    """What a trusted pickled module is: a known architecture by its shapes, else its own class."""
    try:
        return recognise(shapes_of(module.state_dict()))
    except InputError:
        return Architecture(f"{type(module).__module__}:{type(module).__qualname__}")
