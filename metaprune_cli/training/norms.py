"""BatchNorms in models of any class and in programs: measured anew, or without statistics of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from metaprune_cli.errors import InputError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.program.script import Script
from metaprune_cli.graph.trace.record import Step, Value


@runtime_checkable
class Measuring(Protocol):
    """Normalisations whose running statistics are measured anew."""

    def end(self) -> None:
        """The statistics are the plain mean over the batches that were seen; everything else is as it was."""


def measure_norms_(model: nn.Module) -> list[Measuring]:
    """Forget the running statistics of ``model``, which is in eval mode, and measure them from now on."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    programs = [m for m in model.modules() if isinstance(m, Program) and any(_running(m.scripts["eval"]))]
    return [*map(_OfModule, norms), *map(_OfProgram, programs)]


def use_batch_statistics_(model: nn.Module) -> None:
    """Every BatchNorm uses the statistics of its batch in eval mode too, and keeps none."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
            module.track_running_stats = False
        if isinstance(module, Program):
            module.scripts["eval"] = _on_batches(module.scripts["eval"], keep=False)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with BatchNorms that take their statistics over the images of all processes; parameters are shared.

    Raises:
        InputError: PyTorch has none for this device, or for a program.
    """
    trouble = None
    if device.type != "cuda":
        trouble = "BatchNorm can be synchronised between CUDA devices only."
    elif any(isinstance(m, Program) and any(_running(m.scripts["eval"])) for m in model.modules()):
        trouble = "The BatchNorms of a program cannot be synchronised."
    if trouble:
        raise InputError(trouble, where="sync_batchnorm", next_step="leave it out: each process then uses its own part")
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


class _OfModule:
    def __init__(self, norm: Any) -> None:
        self._norm, self._momentum = norm, norm.momentum
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # PyTorch's word for a plain mean

    def end(self) -> None:
        self._norm.momentum = self._momentum


class _OfProgram:
    """Lets every batch overwrite the statistics, and adds them up."""

    def __init__(self, program: Program) -> None:
        self._program, self._script = program, program.scripts["eval"]
        buffers = dict(program.named_buffers())
        self._buffers = {name: buffers[name] for name in _running(self._script) if name in buffers}
        self._sums = {name: torch.zeros_like(buffer) for name, buffer in self._buffers.items()}
        self._batches = 0
        program.scripts["eval"] = _on_batches(self._script, keep=True)
        self._hook = program.register_forward_hook(self._add)

    def _add(self, *_: object) -> None:
        self._batches += 1
        for name, total in self._sums.items():
            total += self._buffers[name]

    def end(self) -> None:
        self._hook.remove()
        self._program.scripts["eval"] = self._script
        counters = dict(self._program.named_buffers())
        for name, total in self._sums.items():
            self._buffers[name].copy_(total / max(self._batches, 1))
            counter = counters.get(f"{name.rpartition('.')[0]}.num_batches_tracked")
            if counter is not None:
                counter.fill_(self._batches)


def _is_norm(step: Step) -> bool:
    """native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps) with statistics."""
    return step.operator is torch.ops.aten.native_batch_norm.default and isinstance(step.args[3], Value)


def _running(script: Script) -> Iterator[str]:
    """The entries that are running means and variances."""
    for way in script.ways:
        entries = way.recording.entries
        for step in filter(_is_norm, way.recording.steps):
            yield from (entries[v.number] for v in step.args[3:5] if v.number in entries)


def _on_batches(script: Script, *, keep: bool) -> Script:
    """The same with statistics of the batch, which (``keep``) overwrite the running ones."""

    def changed(step: Step) -> Step:
        kept: tuple[Any, Any] = step.args[3:5] if keep else (None, None)
        return replace(step, args=(*step.args[:3], *kept, True, 1.0, *step.args[7:]))

    steps = tuple(changed(step) if _is_norm(step) else step for step in script.recording.steps)
    otherwise = tuple(_on_batches(other, keep=keep) for other in script.otherwise)
    return Script(replace(script.recording, steps=steps), script.constants, script.arguments, script.varies, otherwise)
