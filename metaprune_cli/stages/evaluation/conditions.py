"""What every model is measured with: the images, the device, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from metaprune_cli.config import DataSettings, EvalSettings
from metaprune_cli.data import ImageSplit, Splits
from metaprune_cli.metrics.accuracy import Accuracy, evaluate
from metaprune_cli.metrics.latency import Latency, measure_interleaved
from metaprune_cli.training.progress import Progress


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of one evaluation, equal for all its models."""

    test: ImageSplit
    splits: Splits
    data: DataSettings
    settings: EvalSettings
    device: torch.device
    progress: Progress

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch."""
        return self.splits.input_shape[1:]

    def accuracy(self, model: nn.Module) -> Accuracy:
        """Over all test images; the model is on the device afterwards."""
        batches = self.test.batches(self.settings.batch_size, device=self.device)
        return evaluate(model.to(self.device), batches, self.device)

    def latencies(self, models: Mapping[str, nn.Module]) -> dict[str, Latency]:
        """Round-robin over the models, so that what slows the machine down slows all of them."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        images = torch.randn(self.settings.latency_batch, *self.shape, generator=generator)
        runs = self.settings.latency_runs
        return measure_interleaved(models, images, runs=runs, warmup=max(1, runs // 5), device=self.device)

    def in_words(self) -> dict[str, str]:
        """The conditions in words, by label."""
        threads = "" if self.device.type == "cuda" else f" (threads: {torch.get_num_threads()})"
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return {
            "Images": f"the {len(self.test)} test images of {self.splits.name}",
            "Speed-up": "MACs of the base over MACs of the model",
            "Density": "non-zero weights over weights, of all parameters of two dimensions or more",
            "Latency": f"median of {self.settings.latency_runs} interleaved runs with a batch of "
            f"{self.settings.latency_batch} on {name}{threads}",
        }
