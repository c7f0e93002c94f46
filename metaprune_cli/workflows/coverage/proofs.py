"""What has to hold of every model: equal to the bit, runs, trains, and comes back from its file the same."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.trace.passes import repeated
from metaprune_cli.graph.trace.tracer import ExampleInputs, call
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.pruning.check import check
from metaprune_cli.workflows.pruning import Pruned

INPUTS, OUTPUTS = "inputs.pt", "outputs.pt"
_LISTED = 5


def same_state(found: nn.Module, expected: nn.Module) -> None:
    """Every entry of the state dict and every other buffer, to the bit.

    Raises:
        NumericsError: naming the entries that differ.
    """
    one, two = _tensors(found), _tensors(expected)
    different = sorted(one.keys() ^ two.keys()) + [n for n in one if n in two and not _same_bits(one[n], two[n])]
    if different:
        raise NumericsError("The decoded model is not the encoded one.", got=", ".join(different[:_LISTED]))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_buffers()), **model.state_dict()}


def _same_bits(one: Tensor, two: Tensor) -> bool:
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    flat = (one.detach().reshape(-1), two.detach().reshape(-1))
    bits = [t.contiguous().view(torch.uint8) if t.numel() else t for t in flat]
    return torch.equal(*bits)


def runs(model: nn.Module, inputs: ExampleInputs, *, training: bool) -> Any:
    """One forward pass.

    Raises:
        NumericsError: something that comes out is not finite.
    """
    with torch.no_grad():
        output = call(model.train(training), inputs)
    if not all(bool(t.isfinite().all()) for t in leaves(output, Tensor) if t.is_floating_point()):
        raise NumericsError("The model's outputs are not finite.", where="train mode" if training else "eval mode")
    return output


def trains(model: nn.Module, small: nn.Module, inputs: ExampleInputs) -> str | None:
    """One forward and backward pass of the small model in train mode; why not, where the original cannot do it either.

    Raises:
        Exception: whatever the small model raises and the original does not.
    """
    try:
        _backward(small, inputs)
    except Exception as error:
        try:
            _backward(model, inputs)
        except Exception as same:  # noqa: BLE001 - the original cannot be trained on these inputs: no fault of the removal
            return f"{type(same).__name__}: {same}"[:200]
        raise error from None
    return None


def _backward(model: nn.Module, inputs: ExampleInputs) -> None:
    """On two of the inputs where the model takes a batch: batch statistics need more than one value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = copy.deepcopy(model).train().requires_grad_(True)
        try:
            output = call(probe, two_of(inputs))
        except Exception:  # noqa: BLE001 - not every model takes a batch
            output = call(probe, inputs)
        parts = [t.mean() for t in leaves(output, Tensor) if t.requires_grad and t.numel()]
        if not parts:
            raise InputError("Nothing that comes out in train mode has a gradient.")
        guard_convolutions()
        torch.stack(parts).sum().backward()
    if not any(p.grad is not None and bool(p.grad.any()) for p in probe.parameters()):
        raise NumericsError("All gradients are zero.")


def two_of(inputs: ExampleInputs) -> ExampleInputs:
    """The inputs twice along the batch: tensors along their first dimension, lists (of images) as lists."""
    if isinstance(inputs, dict):
        return {name: _twice(value) for name, value in inputs.items()}
    return tuple(map(_twice, inputs)) if isinstance(inputs, tuple) else repeated(inputs, 2)


def _twice(value: Any) -> Any:
    return value * 2 if isinstance(value, list) else repeated(value, 2)


def training_error(model: nn.Module, pruned: Pruned, graph: NeuronGraph, inputs: ExampleInputs) -> dict[str, Any]:
    """The relative error between the small model and the masked original in train mode, nothing dropped.

    A list of images is a batch of its own: two of them where that can be compared, else what it is.
    """
    is_list = isinstance(inputs, tuple) and all(isinstance(value, list) for value in inputs)
    reason: str | None = None
    for given in (two_of(inputs), inputs) if is_list else (inputs,):
        try:
            found = check(model, pruned.model, graph, pruned.plan, given, training=True)
        except NumericsError:
            raise
        except Exception as error:  # noqa: BLE001 - batches of these inputs may not exist
            reason = f"{type(error).__name__}: {error}"[:200]
            continue
        if found.error is not None:
            return {"training_error": found.error, "training_reason": None}
        reason = found.reason
    return {"training_error": None, "training_reason": reason}


def load_alike(saved: Mapping[Path, Any], inputs: ExampleInputs, folder: Path) -> None:
    """Load artifacts in a fresh process and compare what they compute, to the bit; the files are removed.

    Args:
        saved: what the model of each file computed in eval mode.
        inputs: on what.
        folder: where the two processes meet.

    Raises:
        NumericsError: one computes something else.
        InputError: one does not load.
    """
    torch.save(inputs, folder / INPUTS)
    command = (sys.executable, "-m", "metaprune_cli.workflows.coverage.reload", str(folder), *map(str, saved))
    done = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace", check=False)
    for path in saved:
        path.unlink()
    if done.returncode:
        raise InputError("The saved model does not load in a fresh process.", got=done.stderr.strip()[-1000:])
    for found, expected in zip(torch.load(folder / OUTPUTS, weights_only=True), saved.values(), strict=True):
        wanted = list(leaves(expected, Tensor))
        if len(found) != len(wanted) or not all(_same_bits(f, w) for f, w in zip(found, wanted, strict=True)):
            raise NumericsError("The model that was loaded computes something else than the one that was saved.")
