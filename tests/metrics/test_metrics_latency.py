from __future__ import annotations

import time

import torch
from torch import nn

from metaprune_cli.metrics import measure_interleaved, measure_latency


class Sleeper(nn.Module):
    def __init__(self, seconds, calls):
        super().__init__()
        self.seconds = seconds
        self.calls = calls

    def __deepcopy__(self, memo):
        return Sleeper(self.seconds, self.calls)

    def forward(self, inputs):
        self.calls.append(self.seconds)
        time.sleep(self.seconds)
        return inputs


def test_latency_is_in_milliseconds():
    found = measure_latency(Sleeper(0.01, []), torch.zeros(1), runs=5, warmup=1)
    assert 10 <= found.p10_ms <= found.median_ms <= found.p90_ms
    assert found.runs == 5


def test_models_take_turns():
    calls = []
    models = {"a": Sleeper(0.001, calls), "b": Sleeper(0.002, calls)}
    found = measure_interleaved(models, torch.zeros(1), runs=3, warmup=1)
    assert calls == [0.001, 0.002] * 4
    assert list(found) == ["a", "b"]


def test_the_model_keeps_its_mode():
    model = nn.BatchNorm1d(2).train()
    measure_latency(model, torch.zeros(1, 2), runs=1, warmup=0)
    assert model.training
    assert int(model.num_batches_tracked) == 0
