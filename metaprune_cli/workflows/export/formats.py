"""The formats: how each file is called, written, told from other people's, and run after it was read again."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from metaprune_cli.config import ExportFormat
from metaprune_cli.graph.trace.tracer import ExampleInputs, call
from metaprune_cli.workflows.export import huggingface, onnx_file, torchscript, weights
from metaprune_cli.workflows.export.capture import Subject, flat, quietly

About = Mapping[str, Any]
Run = Callable[[ExampleInputs], Any]
TORCH_EXPORT, TORCHSCRIPT = "metaprune-torch-export.json", "metaprune-torchscript.json"
"""The entries of zip files that say what was exported."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        ending: of the file's name, or the folder's.
        write: puts the model and what is said about it into a file.
        read: the model in such a file, ready to be run on inputs.
        is_ours: whether a file is an export of this format by this command.
        is_folder: whether it is a folder of files.
    """

    ending: str
    write: Callable[[Subject, About, Path], None]
    read: Callable[[Subject, Path], Run]
    is_ours: Callable[[Path], bool]
    is_folder: bool = False


def _write_torch_export(subject: Subject, about: About, path: Path) -> None:
    data = io.BytesIO()  # a full disk under PyTorch's own writer ends the process
    with quietly():
        torch.export.save(subject.graph, data, extra_files={TORCH_EXPORT: json.dumps(about)})
    path.write_bytes(data.getbuffer())


def _read_torch_export(_subject: Subject, path: Path) -> Run:
    with path.open("rb") as file, quietly():
        module = torch.export.load(file).module()
    return lambda inputs: call(module, inputs)


def _write_torchscript(subject: Subject, about: About, path: Path) -> None:
    torchscript.save(subject.graph, path, {TORCHSCRIPT: json.dumps(about)})


def _read_torchscript(_subject: Subject, path: Path) -> Run:
    module = torchscript.load(path)
    return lambda inputs: module(*flat(inputs))


def _write_onnx(subject: Subject, about: About, path: Path) -> None:
    onnx_file.save(subject, json.dumps(about), path)


def _read_onnx(subject: Subject, path: Path) -> Run:
    session = onnx_file.load(path)
    names = subject.input_names()
    return lambda inputs: session(dict(zip(names, flat(inputs), strict=True)))


def _write_weights(subject: Subject, about: About, path: Path) -> None:
    weights.save(subject, json.dumps(about), path)


def _read_weights(subject: Subject, path: Path) -> Run:
    model = weights.load(subject, path)
    return lambda inputs: call(model, inputs)


def _write_huggingface(subject: Subject, about: About, path: Path) -> None:
    huggingface.save(subject, json.dumps(about), path)


def _read_huggingface(subject: Subject, path: Path) -> Run:
    model = huggingface.load(subject, path)
    return lambda inputs: call(model, inputs)


def _has_entry(entry: str, path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(f"/{entry}") for name in archive.namelist())


FORMATS: Mapping[ExportFormat, Format] = MappingProxyType(
    {
        "safetensors": Format(".weights.safetensors", _write_weights, _read_weights, weights.is_ours),
        "torch-export": Format(".pt2", _write_torch_export, _read_torch_export, partial(_has_entry, TORCH_EXPORT)),
        "onnx": Format(".onnx", _write_onnx, _read_onnx, onnx_file.is_ours),
        "torchscript": Format(".ts.pt", _write_torchscript, _read_torchscript, partial(_has_entry, TORCHSCRIPT)),
        "huggingface": Format(".hf", _write_huggingface, _read_huggingface, huggingface.is_ours, is_folder=True),
    }
)
