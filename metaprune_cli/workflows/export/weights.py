"""Plain weights: a state dict, and in its metadata what to set on a freshly built model so that it takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.resize import fill_, hollow_copy
from metaprune_cli.models import Architecture
from metaprune_cli.models.registry import build, skeleton
from metaprune_cli.workflows.export.capture import Subject

KEY, ATTRIBUTES = "metaprune-safetensors", "attributes"
LENGTH_BYTES = 8  # of the header's length, with which a file begins
_PLAIN = (bool, int, float, str)


def save(subject: Subject, about: str, path: Path) -> None:
    """Write the state dict under the model's own names.

    ``attributes`` in the metadata is a JSON object, module -> attribute -> value: where pruning has changed more of the
    author's class than its tensors (``groups``, ``num_features`` …). A program has none: it is not the author's class.

    Raises:
        InputError: nothing says what the author's class is.
    """
    model = subject.model
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    changed = {} if isinstance(model, Program) else changed_attributes(model, skeleton(_known(subject)))
    data = to_bytes(tensors, {"format": "pt", KEY: about, ATTRIBUTES: json.dumps(changed)})
    path.write_bytes(_in_order(data))


def load(subject: Subject, path: Path) -> nn.Module:
    """The model again, as docs/deploy.md does it: built by its author's code, attributes and tensors put in place."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        attributes = json.loads(file.metadata()[ATTRIBUTES])
    if isinstance(subject.model, Program):
        model = hollow_copy(subject.model)
        fill_(model, tensors)
        return model.eval()
    model = build(_known(subject))
    for name, values in attributes.items():
        vars(model.get_submodule(name)).update(values)
    for name, tensor in tensors.items():
        owner, leaf = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        setattr(owner, leaf, nn.Parameter(tensor) if leaf in owner._parameters else tensor)
    return model.eval()


def _known(subject: Subject) -> Architecture:
    if subject.architecture is None:
        raise InputError(
            "Plain weights need to be told from those of the class as its author builds it.",
            expected="an architecture",
            got="a module alone",
            where="--format safetensors",
            next_step='in Python: arch="package.module:factory", or a known name; or choose another format',
        )
    return subject.architecture


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata in alphabetical order: safetensors writes them in one that is drawn each time."""
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # where tensors begin is a multiple of eight
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + data[end:]


def is_ours(path: Path) -> bool:
    """Whether a file has our metadata."""
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except Exception:  # noqa: BLE001 - safetensors raises an error of its own for each way not to be such a file
        return False


def changed_attributes(model: nn.Module, original: nn.Module) -> dict[str, dict[str, Any]]:
    """The plain attributes (numbers, texts, sizes) of every module in which it differs from the original's."""
    found = {}
    modules = dict(original.named_modules())
    for name, module in model.named_modules():
        before = dict(_plain_attributes(modules[name]))
        if changed := {key: value for key, value in _plain_attributes(module) if before.get(key) != value}:
            found[name] = changed
    return found


def _plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for key, value in vars(module).items():
        is_sizes = isinstance(value, tuple) and all(isinstance(part, _PLAIN) for part in value)
        if key != "training" and (isinstance(value, _PLAIN) or is_sizes):
            yield key, value
