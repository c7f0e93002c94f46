"""Tasks of users' own, as they write them: one derives from ``Task``, one does not; inputs and targets are nests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.config import DataSettings
from metaprune_cli.data import Split, Splits, TensorSplit
from metaprune_cli.tasks import Metric, SumMeter, Task

NOISY = 16


class Denoising(Task):
    """Two vectors in, what they were before the noise out; the headline is an error, so less of it is better."""

    name = "denoising"
    metrics = (Metric("mae", "MAE", higher_is_better=False, digits=4),)

    def splits(self, data: DataSettings) -> Splits:
        return Splits(vectors(1280, 0), vectors(24, 1), None, "vectors")

    def test(self, data: DataSettings) -> Mapping[str, Split]:
        return {"near": vectors(16, 2), "far": vectors(16, 3)}

    def loss(self, output: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        return (output["clean"] - targets["clean"]).square().mean()

    def meter(self) -> SumMeter:
        return SumMeter(_errors, lambda sums: {"mae": sums[0] / sums[1]}, 2)

    def match(self, output: Mapping[str, Tensor], taught: Mapping[str, Tensor], temperature: float = 1.0) -> Tensor:
        return (output["clean"] - taught["clean"]).abs().mean()


def _errors(output: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    error = (output["clean"] - targets["clean"]).abs()
    return torch.stack([error.sum(), torch.tensor(error.numel())])


def vectors(count: int, seed: int) -> TensorSplit:
    """Targets are a dictionary, inputs two arguments."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randn(count, NOISY, generator=draw)
    noisy = (clean + 0.1 * torch.randn(count, NOISY, generator=draw), clean.flip(1))
    return TensorSplit(noisy, {"clean": clean})


class Net(nn.Module):
    example_inputs = (torch.zeros(1, NOISY), torch.zeros(1, NOISY))

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(NOISY, 32), nn.Linear(NOISY, 32)
        self.norm, self.last = nn.BatchNorm1d(32), nn.Linear(32, NOISY)

    def forward(self, noisy: Tensor, flipped: Tensor) -> dict[str, Tensor]:
        return {"clean": self.last(self.norm(self.first(noisy) + self.second(flipped)).relu())}


class Half(Task):
    """Something is missing."""

    name = "half"
    metrics = (Metric("mae", "MAE"),)

    def loss(self, output: Any, targets: Any) -> Tensor:
        return output.mean()


class Wrong(Denoising):
    """Its loss does not know what the model returns."""

    def loss(self, output: Any, targets: Any) -> Tensor:
        return output["dirty"].mean()


class Silent(Denoising):
    """Its meter measures something else."""

    def meter(self) -> SumMeter:
        return SumMeter(_errors, lambda sums: {"error": sums[0]}, 2)
