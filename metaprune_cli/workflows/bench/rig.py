"""Measuring models that take turns, and comparing each with its base."""

from __future__ import annotations

import copy
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from metaprune_cli.config import BenchSettings
from metaprune_cli.metrics.latency import gain, summary, times_interleaved
from metaprune_cli.metrics.layers import time_layers
from metaprune_cli.metrics.macs import count_macs, count_params
from metaprune_cli.metrics.memory import peak_memory
from metaprune_cli.workflows.bench.blame import Layer, causes, changed_weights, in_words, layers_to_blame
from metaprune_cli.workflows.bench.verdict import Verdict, judge
from metaprune_cli.workflows.inputs import random_inputs
from metaprune_cli.workflows.loading import Opened


@dataclass(frozen=True)
class Row:
    """One model at one batch size.

    Attributes:
        name: what it is called.
        base: what it is compared with.
        batch: items in one forward pass.
        macs: of one item.
        params: its parameters.
        latency_ms: of one forward pass, the median.
        latency_p10_ms: a tenth of the passes took less.
        latency_p90_ms: a tenth took more.
        items_per_s: at the median.
        memory_bytes: weights, inputs and activations at the worst moment.
        macs_speedup: MACs of the base over its own.
        latency_speedup: time of the base over its own, the median of neighbouring passes.
        latency_speedup_low: lower end of the 95 % confidence interval.
        latency_speedup_high: upper end.
        verdict: whether the latency followed the MACs (see ``benching.verdict``).
    """

    name: str
    base: str
    batch: int
    macs: int
    params: int
    latency_ms: float
    latency_p10_ms: float
    latency_p90_ms: float
    items_per_s: float
    memory_bytes: int
    macs_speedup: float
    latency_speedup: float
    latency_speedup_low: float
    latency_speedup_high: float
    verdict: Verdict


@dataclass(frozen=True)
class Warned:
    """A model whose latency did not follow its MACs: in words, the causes that show, and the layers to blame."""

    name: str
    base: str
    batch: int
    text: str
    causes: tuple[str, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class Rig:
    """The models, what each is compared with, and how they are measured.

    Attributes:
        models: by name.
        bases: name of each model -> name of its base.
        settings: runs, and when to warn.
        device: where everything runs.
    """

    models: Mapping[str, Opened]
    bases: Mapping[str, str]
    settings: BenchSettings
    device: torch.device

    def measured(self, batch: int) -> list[Row]:
        """One row for each model."""
        modules = {name: opened.model for name, opened in self.models.items()}
        inputs = random_inputs(self._first.example(), batch, self.settings.seed)
        memory = {name: peak_memory(self._there(model), inputs, self.device) for name, model in modules.items()}
        times = times_interleaved(modules, inputs, self.settings.runs, self.settings.warmup, self.device)
        return [self._row(name, batch, memory[name], times) for name in modules]

    def warned(self, row: Row) -> Warned:
        """Why the latency of this row did not follow: both models once more, operator by operator."""
        base, own = self.models[row.base].model, self.models[row.name].model
        inputs = random_inputs(self._first.example(), row.batch, self.settings.seed)
        runs = self.settings.layer_runs
        found = time_layers({"base": base, "own": own}, inputs, runs=runs, device=self.device)
        weights = changed_weights(base, own)
        channels = {name: in_words(*shapes) for name, shapes in weights.items()}
        return Warned(
            row.name,
            row.base,
            row.batch,
            _sentence(row),
            causes(found["base"], found["own"], weights),
            layers_to_blame(found["base"], found["own"], channels),
        )

    def conditions(self) -> dict[str, str]:
        """How it was measured, in words, by label."""
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if cuda else platform.processor() or platform.machine()
        threads = torch.get_num_threads()
        return {
            "Device": name if cuda else f"CPU {name}, {threads} thread{'s' if threads > 1 else ''}",
            "PyTorch": torch.__version__,
            "Latency": f"median of {self.settings.runs} passes after {self.settings.warmup} to warm up, in turns",
            "Memory": "weights, inputs and activations at the worst moment, "
            + (
                "as CUDA's allocator counts"
                if cuda
                else "tensor by tensor, without what an operator needs within itself"
            ),
            "Interval": "95 % confidence interval of the median of the ratios of neighbouring passes",
        }

    @property
    def _first(self) -> Opened:
        return next(iter(self.models.values()))

    @cached_property
    def _macs(self) -> dict[str, int]:
        return {name: count_macs(opened.model, opened.example()) for name, opened in self.models.items()}

    def _there(self, model: nn.Module) -> nn.Module:
        return model if self.device.type == "cpu" else copy.deepcopy(model).to(self.device)

    def _row(self, name: str, batch: int, memory_bytes: int, times: Mapping[str, list[float]]) -> Row:
        base, latency = self.bases[name], summary(times[name])
        found = gain(times[base], times[name])
        macs_gain = self._macs[base] / self._macs[name]
        return Row(
            name=name,
            base=base,
            batch=batch,
            macs=self._macs[name],
            params=count_params(self.models[name].model),
            latency_ms=latency.median_ms,
            latency_p10_ms=latency.p10_ms,
            latency_p90_ms=latency.p90_ms,
            items_per_s=1000 * batch / latency.median_ms,
            memory_bytes=memory_bytes,
            macs_speedup=macs_gain,
            latency_speedup=found.median,
            latency_speedup_low=found.low,
            latency_speedup_high=found.high,
            verdict=judge(found, macs_gain, self.settings),
        )


def _sentence(row: Row) -> str:
    faster = "is not faster" if row.latency_speedup_low <= 1 else "is faster, but by much less than its MACs promise"
    return (
        f"{row.name} {faster} (batch {row.batch}): MACs {row.macs_speedup:.2f}x, latency {row.latency_speedup:.2f}x "
        f"({row.latency_speedup_low:.2f} to {row.latency_speedup_high:.2f}) against {row.base}"
    )
