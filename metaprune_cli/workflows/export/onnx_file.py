"""ONNX: written by PyTorch's exporter, run by ONNX Runtime; both are optional dependencies."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import InputError
from metaprune_cli.workflows.export.capture import BATCH, Subject, quietly

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
KEY = "metaprune-onnx"
_LIMIT = 2**31
_TAIL = 1 << 16


def check_installed() -> None:
    """Refuse, before any work is done, what cannot be written or checked here.

    Raises:
        InputError: naming the packages that are missing.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(
            "ONNX files cannot be written here.",
            expected=f"the packages {', '.join(PACKAGES)}",
            got=f"{', '.join(missing)} missing",
            where="--format onnx",
            next_step=f"pip install {' '.join(missing)}, or pip install 'metaprune[export]'",
        )


def save(subject: Subject, about: str, path: Path) -> None:
    """Write one ONNX file, weights included, with ``about`` in its metadata.

    Raises:
        InputError: the model is larger than a file may be.
    """
    if sum(t.numel() * t.element_size() for t in subject.model.state_dict().values()) >= _LIMIT:
        raise InputError("One ONNX file cannot hold 2 GiB of weights.", next_step="--format torch-export")
    graph = subject.graph
    inputs, outputs = subject.input_names(), subject.output_names()
    with _silence():
        program = torch.onnx.export(graph, dynamo=True, input_names=inputs, output_names=outputs)
    assert program is not None
    model = program.model_proto
    _name_the_batch(model, [str(symbol) for symbol in graph.range_constraints])
    model.metadata_props.add(key=KEY, value=about)
    path.write_bytes(model.SerializeToString())


def load(path: Path) -> Callable[[Mapping[str, Tensor]], list[Tensor]]:
    """The model in such a file, run by ONNX Runtime on the CPU on tensors by input name."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}  # the exporter drops what the model does not read

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        found = session.run(None, {name: t.numpy() for name, t in inputs.items() if name in taken})
        return [torch.from_numpy(array) for array in found]

    return run


def is_ours(path: Path) -> bool:
    """Whether a file has our metadata, which come last in it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL), os.SEEK_SET)
        return KEY.encode() in file.read()


def _name_the_batch(model: Any, symbols: list[str]) -> None:
    """Call the dimension of any size by its name, where inputs and outputs have it as it is."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    for dim in (dim for value in values for dim in value.type.tensor_type.shape.dim):
        if dim.dim_param in symbols:
            dim.dim_param = BATCH


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints and logs what it is doing; stdout is for results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quietly(), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
