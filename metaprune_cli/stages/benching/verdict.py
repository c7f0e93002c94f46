"""Whether a model is as much faster as its MACs promise, the spread of the measurements taken into account."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from metaprune_cli.config import BenchSettings

Verdict = Literal["no claim", "as promised", "lags", "unclear"]


@dataclass(frozen=True)
class Gain:
    """Time of the base over time of the model: the median over the turns, and its 95 % confidence interval."""

    median: float
    low: float
    high: float


def gain(base_ms: Sequence[float], own_ms: Sequence[float]) -> Gain:
    """The gain from measurements that took turns: each is compared with its neighbour, so a drift cancels.

    The interval is that of order statistics, which assumes no distribution: ranks n/2 ± 0.98 √n.
    """
    ratios = sorted(base / own for base, own in zip(base_ms, own_ms, strict=True))
    count, reach = len(ratios), 0.98 * math.sqrt(len(ratios))
    low = max(0, math.floor(count / 2 - reach) - 1)
    high = min(count - 1, math.ceil(count / 2 + reach))
    middle = (ratios[(count - 1) // 2] + ratios[count // 2]) / 2
    return Gain(middle, ratios[low], ratios[high])


def due(macs_gain: float, share: float) -> float:
    """The gain in latency with which ``share`` of the MACs saved is time saved."""
    return 1 / (1 - share * (1 - 1 / macs_gain))


def judge(found: Gain, macs_gain: float, settings: BenchSettings) -> Verdict:
    """What to say of a model.

    ``no claim``: its MACs did not fall (by ``settings.claim`` at least). ``lags``: even at the upper end of the
    interval, less than the share ``settings.arrives`` of the MACs saved is time saved. ``unclear``: the interval
    reaches from no gain at all to what is due.
    """
    if macs_gain < settings.claim:
        return "no claim"
    if found.high < due(macs_gain, settings.arrives):
        return "lags"
    return "unclear" if found.low <= 1 else "as promised"
