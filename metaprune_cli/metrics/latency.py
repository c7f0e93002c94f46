"""How long one forward pass takes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune_cli.metrics.calling import call, evaluating


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass over ``runs`` measurements: the median, and the 10th and 90th percentile."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True)
class Gain:
    """Time of the base over time of the model: the median over the turns, and its confidence interval."""

    median: float
    low: float
    high: float


def gain(base_ms: Sequence[float], own_ms: Sequence[float], deviations: float = 1.96) -> Gain:
    """The gain from measurements that took turns: each is compared with its neighbour, so a drift cancels.

    The interval is that of order statistics, which assumes no distribution: ranks n/2 ± z/2 √n, with z = 1.96
    standard ``deviations`` for 95 %.
    """
    ratios = sorted(base / own for base, own in zip(base_ms, own_ms, strict=True))
    count, reach = len(ratios), deviations / 2 * math.sqrt(len(ratios))
    low = max(0, math.floor(count / 2 - reach) - 1)
    high = min(count - 1, math.ceil(count / 2 + reach))
    middle = (ratios[(count - 1) // 2] + ratios[count // 2]) / 2
    return Gain(middle, ratios[low], ratios[high])


def measure_latency(
    model: nn.Module, example_inputs: Any, runs: int = 30, warmup: int = 5, device: torch.device | str = "cpu"
) -> Latency:
    """Latency of one model in eval mode; arguments as in :func:`measure_interleaved`."""
    return measure_interleaved({"model": model}, example_inputs, runs, warmup, device)["model"]


def measure_interleaved(
    models: Mapping[str, nn.Module],
    example_inputs: Any,
    runs: int = 30,
    warmup: int = 5,
    device: torch.device | str = "cpu",
) -> dict[str, Latency]:
    """Latency of several models on the same inputs, taking turns so that a drift of the machine hits all alike.

    Args:
        models: by name; copies are measured.
        example_inputs: a tensor, or a tuple or mapping of arguments.
        runs: measurements of each model.
        warmup: passes before these, which do not count.
    """
    times = times_interleaved(models, example_inputs, runs, warmup, device)
    return {name: summary(times_ms) for name, times_ms in times.items()}


def times_interleaved(
    models: Mapping[str, nn.Module],
    example_inputs: Any,
    runs: int,
    warmup: int = 5,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """The single measurements in milliseconds, turn by turn; arguments as in :func:`measure_interleaved`."""
    copies = {name: copy.deepcopy(model).to(device) for name, model in models.items()}
    inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), example_inputs)
    times_ms: dict[str, list[float]] = {name: [] for name in copies}
    for turn in range(warmup + runs):
        for name, model in copies.items():
            elapsed_ms = _timed_ms(model, inputs, torch.device(device))
            if turn >= warmup:
                times_ms[name].append(elapsed_ms)
    return times_ms


def _timed_ms(model: nn.Module, inputs: Any, device: torch.device) -> float:
    with evaluating(model):
        finish(device)
        start = time.perf_counter()
        call(model, inputs)
        finish(device)
        return (time.perf_counter() - start) * 1000


def finish(device: torch.device) -> None:
    """Wait for what is queued on an accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(times_ms: list[float]) -> Latency:
    """Median and percentiles of single measurements."""
    p10, median, p90 = torch.tensor(times_ms).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return Latency(median, p10, p90, len(times_ms))
