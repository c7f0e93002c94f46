"""What every model is measured with: the images, the device, the settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import DataSettings, EvalSettings
from metaprune_cli.data import Split, Splits
from metaprune_cli.data.patches import WholeSplit
from metaprune_cli.metrics.latency import Latency, measure_interleaved
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.tasks import Score, Task, measure
from metaprune_cli.tasks.base import Exhibit
from metaprune_cli.tasks.measuring import beside_each_other
from metaprune_cli.training.progress import Progress, counted


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of one evaluation, equal for all its models."""

    task: Task
    tests: Mapping[str, Split]
    splits: Splits
    data: DataSettings
    settings: EvalSettings
    device: torch.device
    progress: Progress

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one input, without the batch."""
        return self.splits.item_shape

    @cached_property
    def exhibits(self) -> Sequence[Exhibit]:
        """Samples of which a report shows what models make of them."""
        return self.task.exhibits(self.tests)

    def further_macs(self, model: nn.Module) -> dict[str, int]:
        """Of one input of other shapes than the example's, by their names."""
        shapes = self.task.counted(model, self.splits)
        return {name: count_macs(model, torch.empty(shape, device="meta")) for name, shape in shapes.items()}

    def score(self, model: nn.Module, name: str = "") -> Score:
        """Over all test images; the model is on the device afterwards. ``name`` is what its progress is called by."""
        model = model.to(self.device)
        return beside_each_other({test: self._on(test, model, name) for test in self.tests})

    def _on(self, test: str, model: nn.Module, name: str) -> Score:
        size, split = self.settings.batch_size, self.tests[test]
        batches = split.batches(size, device=self.device)
        one_by_one = isinstance(split, WholeSplit)
        steps = len(split) if one_by_one else math.ceil(len(split) / size)
        seen = counted(batches, self.progress, f"{test} {name}".rstrip(), steps)
        return measure(model, seen, self.device, self.task)

    def latencies(self, models: Mapping[str, nn.Module]) -> dict[str, Latency]:
        """Round-robin over the models, so that what slows the machine down slows all of them."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        batch, runs = self.settings.latency_batch, self.settings.latency_runs
        inputs: Any
        if self.shape is None:
            inputs = next(self.splits.val.batches(batch)).inputs
        else:
            inputs = torch.randn(batch, *self.shape, generator=generator)
        return measure_interleaved(models, inputs, runs=runs, warmup=max(1, runs // 5), device=self.device)

    def in_words(self) -> dict[str, str]:
        """The conditions in words, by label."""
        threads = "" if self.device.type == "cuda" else f" (threads: {torch.get_num_threads()})"
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return {
            "Images": " and ".join(
                f"the {len(test)} test {'image' if len(test) == 1 else 'images'} of {name}"
                for name, test in self.tests.items()
            ),
            **self.task.in_words(),
            "Speed-up": "MACs of the base over MACs of the model",
            "Density": "non-zero weights over weights, of all parameters of two dimensions or more",
            "Latency": f"median of {self.settings.latency_runs} interleaved runs with a batch of "
            f"{self.settings.latency_batch} on {name}{threads}",
        }
